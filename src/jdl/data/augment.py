"""Augmentation inside the lane: pure functions of a key, whose strengths may be traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jdl._checks import check_number
from jdl.data.batches import permute

Key = Any
Batch = tuple[Any, Any]
Augment = Callable[[Key, Batch], Batch]
"""`augment(key, (x, y)) -> (x, y)`: `x` keeps its shape (but for `crop`) and dtype.

Images are (batch, height, width, channels); every image draws its own numbers,
and what comes from outside of an image is 0.
"""


def chain(*augments: Augment) -> Augment:
    """One augmentation that applies `augments` in order, each with a key of its own."""

    def apply(key: Key, batch: Batch) -> Batch:
        for position, augment in enumerate(augments):
            batch = augment(jax.random.fold_in(key, position), batch)
        return batch

    return apply


def flip(probability: Any = 0.5, *, axis: str = "horizontal") -> Augment:
    """Mirrors an image with the given probability; 0 is off.

    Args:
      probability: in [0, 1], may be traced.
      axis: "horizontal" swaps left and right, "vertical" top and bottom.
    """
    check_number("probability", probability, "[0, 1]")
    if axis not in ("horizontal", "vertical"):
        raise ValueError(f"`axis` must be 'horizontal' or 'vertical', got axis={axis!r}.")

    def apply(key: Key, batch: Batch) -> Batch:
        x, y = _images(batch)
        chosen = jax.random.bernoulli(key, probability, (len(x), 1, 1, 1))
        return jnp.where(chosen, jnp.flip(x, 2 if axis == "horizontal" else 1), x), y

    return apply


def crop(size: int | tuple[int, int] | None = None, padding: Any = 0) -> Augment:
    """Cuts a random window out of the image padded by zeros on every side.

    Args:
      size: static, the side of the window or (height, width), at most that of
        the image; None keeps the image's.
      padding: pixels, a whole number in [0, inf), may be traced. With `size`
        None, 0 is off.
    """
    check_number("padding", padding, "[0, inf)")

    def apply(key: Key, batch: Batch) -> Batch:
        x, y = _images(batch)
        height, width = (size, size) if isinstance(size, int) else size or x.shape[1:3]
        if not (1 <= height <= x.shape[1] and 1 <= width <= x.shape[2]):
            raise ValueError(
                f"`size` must be at most the image's {x.shape[1:3]}, got size={(height, width)}."
            )
        border = _whole(padding)
        row_key, column_key = jax.random.split(key)
        top = jax.random.randint(row_key, (len(x),), -border, x.shape[1] - height + border + 1)
        left = jax.random.randint(column_key, (len(x),), -border, x.shape[2] - width + border + 1)
        return _window(x, top, left, height, width), y

    return apply


def shift(vertical: Any = 2, horizontal: Any = 2) -> Augment:
    """Moves an image by whole pixels, uniform in [-vertical, vertical] and likewise across.

    Args:
      vertical: pixels, a whole number in [0, inf), may be traced; 0 is off.
      horizontal: likewise.
    """
    check_number("vertical", vertical, "[0, inf)")
    check_number("horizontal", horizontal, "[0, inf)")

    def apply(key: Key, batch: Batch) -> Batch:
        x, y = _images(batch)
        row_key, column_key = jax.random.split(key)
        down, right = _whole(vertical), _whole(horizontal)
        top = jax.random.randint(row_key, (len(x),), -down, down + 1)
        left = jax.random.randint(column_key, (len(x),), -right, right + 1)
        return _window(x, top, left, *x.shape[1:3]), y

    return apply


def rotate(degrees: Any = 10.0) -> Augment:
    """Turns an image about its centre by an angle uniform in [-degrees, degrees], bilinearly.

    Args:
      degrees: in [0, inf), may be traced; 0 is off.
    """
    check_number("degrees", degrees, "[0, inf)")

    def apply(key: Key, batch: Batch) -> Batch:
        x, y = _images(batch)
        _check_float("rotate", x)
        angle = jnp.deg2rad(degrees) * jax.random.uniform(key, (len(x), 1, 1), minval=-1.0)
        height, width = x.shape[1:3]
        down = (jnp.arange(height) - (height - 1) / 2)[None, :, None]
        right = (jnp.arange(width) - (width - 1) / 2)[None, None, :]
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        rows = cos * down - sin * right + (height - 1) / 2
        columns = sin * down + cos * right + (width - 1) / 2
        return _bilinear(x, rows, columns), y

    return apply


def cutout(size: Any = 8) -> Augment:
    """Sets a square to 0 whose centre is a pixel of the image; it may reach over the edge.

    Args:
      size: the side in pixels, in [0, inf), may be traced; 0 is off.

    Source: DeVries and Taylor (2017), Improved Regularization of Convolutional
    Neural Networks with Cutout.
    """
    check_number("size", size, "[0, inf)")

    def apply(key: Key, batch: Batch) -> Batch:
        x, y = _images(batch)
        row_key, column_key = jax.random.split(key)
        row = jax.random.randint(row_key, (len(x), 1, 1, 1), 0, x.shape[1])
        column = jax.random.randint(column_key, (len(x), 1, 1, 1), 0, x.shape[2])
        down = (jnp.arange(x.shape[1])[None, :, None, None] - row) + size / 2
        right = (jnp.arange(x.shape[2])[None, None, :, None] - column) + size / 2
        inside = (down >= 0) & (down < size) & (right >= 0) & (right < size)
        return jnp.where(inside, jnp.zeros((), x.dtype), x), y

    return apply


def noise(deviation: Any = 0.1) -> Augment:
    """Adds Gaussian noise to every number of `x`, of any shape.

    Args:
      deviation: in the units of `x`, in [0, inf), may be traced; 0 is off.
    """
    check_number("deviation", deviation, "[0, inf)")

    def apply(key: Key, batch: Batch) -> Batch:
        x, y = batch
        _check_float("noise", x)
        return (x + deviation * jax.random.normal(key, x.shape)).astype(x.dtype), y

    return apply


def mixup(alpha: Any = 0.2, classes: int | None = None) -> Augment:
    """`t x_i + (1 - t) x_j`, and the targets alike, with one `t ~ Beta(alpha, alpha)` a batch.

    The partners `j` are a random order of the batch. As in the authors' code,
    and unlike their formula, the whole batch shares `t`.

    Args:
      alpha: in [0, inf), may be traced; 0 is off (`t` is 1).
      classes: needed for integer labels, which become probabilities
        (batch, classes), also where alpha is 0.

    Source: Zhang, Cisse, Dauphin and Lopez-Paz (2018), mixup: Beyond Empirical
    Risk Minimization.
    """
    check_number("alpha", alpha, "[0, inf)")

    def apply(key: Key, batch: Batch) -> Batch:
        x, y = batch
        _check_float("mixup", x)
        if jnp.issubdtype(y.dtype, jnp.integer):
            if classes is None:
                raise ValueError("`classes` must be given to mix integer labels, got classes=None.")
            y = jax.nn.one_hot(y, classes)
        share_key, order_key = jax.random.split(key)
        on = jnp.asarray(alpha) > 0
        concentration = jnp.where(on, alpha, 1.0)
        share = jnp.where(on, jax.random.beta(share_key, concentration, concentration), 1.0)
        partner = permute(jnp.arange(len(x)), len(x), order_key)

        def mix(a: Array) -> Array:
            return (share * a + (1 - share) * a[partner]).astype(a.dtype)

        return mix(x), mix(y)

    return apply


def _whole(number: Any) -> Array:
    return jnp.round(jnp.asarray(number)).astype(jnp.int32)


def _images(batch: Batch) -> Batch:
    if batch[0].ndim != 4:
        raise ValueError(
            f"expected images (batch, height, width, channels), got shape {batch[0].shape}."
        )
    return batch


def _check_float(name: str, x: Array) -> None:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"`{name}` needs floating-point x, got {x.dtype}.")


def _at(x: Array, rows: Array, columns: Array) -> Array:
    """The pixels at integer (batch, h, w) places, 0 outside of the image."""
    inside = (rows >= 0) & (rows < x.shape[1]) & (columns >= 0) & (columns < x.shape[2])
    rows, columns = rows.clip(0, x.shape[1] - 1), columns.clip(0, x.shape[2] - 1)
    image = jnp.arange(len(x))[:, None, None]
    pixels = x.at[image, rows, columns].get(mode="promise_in_bounds")
    return jnp.where(inside[..., None], pixels, jnp.zeros((), x.dtype))


def _window(x: Array, top: Array, left: Array, height: int, width: int) -> Array:
    rows = top[:, None, None] + jnp.arange(height)[None, :, None]
    columns = left[:, None, None] + jnp.arange(width)[None, None, :]
    return _at(x, rows, columns)


def _bilinear(x: Array, rows: Array, columns: Array) -> Array:
    top, left = jnp.floor(rows), jnp.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    top, left = top.astype(jnp.int32), left.astype(jnp.int32)
    upper = (1 - right) * _at(x, top, left) + right * _at(x, top, left + 1)
    lower = (1 - right) * _at(x, top + 1, left) + right * _at(x, top + 1, left + 1)
    return ((1 - down) * upper + down * lower).astype(x.dtype)
