"""Preprocessing as values: fitted to the training split, applied, inverted, saved and loaded."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from jdl._paths import expanded

BLOCK = 2**22


class Preprocess(NamedTuple):
    """A fitted affine map of examples, `((x - mean) / scale) @ matrix`; a pytree of arrays.

    Attributes:
      mean: broadcasts against a batch, its first axis 1.
      scale: broadcasts against a batch; a scalar 1 where nothing is scaled.
      matrix: (features, features), acting on the flattened example; None for
        none, which is cheaper than the identity.
      inverse: the inverse of `matrix`, or None.
    """

    mean: Any
    scale: Any
    matrix: Any = None
    inverse: Any = None

    def apply(self, x: Any) -> Any:
        """The preprocessed `x` (examples, ...), in float32 or `x`'s wider float.

        Works on NumPy and, inside a compiled program, on JAX arrays.
        """
        x = x if hasattr(x, "dtype") else np.asarray(x)
        dtype = _float(x.dtype)
        y = (x.astype(dtype) - self.mean) / self.scale
        if self.matrix is not None:
            y = (y.reshape(len(y), -1) @ self.matrix).reshape(y.shape)
        return y.astype(dtype)

    def invert(self, y: Any) -> Any:
        """The `x` of which `y` is the preprocessed value, up to rounding."""
        if self.inverse is not None:
            y = (y.reshape(len(y), -1) @ self.inverse).reshape(y.shape)
        return y * self.scale + self.mean

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the arrays to a safetensors file."""
        # Not `ascontiguousarray`, which gives a scalar an axis.
        fields = {k: np.asarray(v, order="C") for k, v in self._asdict().items() if v is not None}
        safetensors.numpy.save_file(fields, expanded(path))


def load(path: str | os.PathLike[str]) -> Preprocess:
    """The value that `Preprocess.save` wrote.

    Raises:
      ValueError: the file is not one.
    """
    try:
        fields = safetensors.numpy.load_file(expanded(path))
        return Preprocess(**fields)
    except (safetensors.SafetensorError, TypeError) as error:
        raise ValueError(f"{os.fspath(path)} holds no preprocessing: {error}.") from error


def zero_mean(x: Any) -> Preprocess:
    """Subtracts each feature's mean over the examples: `x - mean(x, 0)`.

    >>> zero_mean(np.array([[1.0, 4.0], [3.0, 8.0]])).mean.tolist()
    [[2.0, 6.0]]
    """
    mean, _ = _moments(x, (0,))
    return Preprocess(mean, np.ones((), mean.dtype))


def standardize(x: Any) -> Preprocess:
    """Zero mean and unit variance of each feature: `(x - mean) / std`, the biased deviation.

    A feature that is constant is only centred.

    >>> standardize(np.array([[1.0, 4.0], [3.0, 4.0]])).apply(np.array([[4.0, 5.0]])).tolist()
    [[2.0, 1.0]]
    """
    return Preprocess(*_moments(x, (0,)))


def mean_image(x: Any) -> Preprocess:
    """Subtracts the mean image, one mean for each pixel and channel of (n, height, width,
    channels), as in Krizhevsky et al. (2012).
    """
    _check_images(x)
    return zero_mean(x)


def channel_mean(x: Any) -> Preprocess:
    """Subtracts one mean for each channel, the last axis, as in Simonyan and Zisserman (2014)."""
    mean, _ = _moments(x, tuple(range(np.ndim(x) - 1)))
    return Preprocess(mean, np.ones((), mean.dtype))


def standardize_channels(x: Any) -> Preprocess:
    """Zero mean and unit variance of each channel, the last axis, over examples and pixels."""
    return Preprocess(*_moments(x, tuple(range(np.ndim(x) - 1))))


def whiten(x: Any, epsilon: float = 1e-5, *, form: str = "zca") -> Preprocess:
    """Decorrelates the features: with covariance `V diag(l) V^T`, the matrix is
    `V diag(1 / sqrt(l + epsilon))` ("pca"), then rotated back by `V^T` ("zca").

    Args:
      x: (examples, ...); the example is flattened, and the covariance is of
        features x features.
      epsilon: added to each variance, in the units of x squared; where a
        variance is 0, at least as large as rounding (1e-6 of the largest).
      form: "zca" stays closest to `x` (images remain images), "pca" orders the
        components by falling variance.

    Source: Bell and Sejnowski (1997), The "independent components" of natural
    scenes are edge filters.
    """
    if form not in ("zca", "pca"):
        raise ValueError(f"`form` must be 'zca' or 'pca', got form={form!r}.")
    if not epsilon >= 0:
        raise ValueError(f"`epsilon` must be in [0, inf), got epsilon={epsilon}.")
    x = np.asarray(x)
    mean, _ = _moments(x, (0,))
    features = mean.size
    covariance = np.zeros((features, features))
    for block in _blocks(x):
        centred = (block - mean).reshape(len(block), -1)
        covariance += centred.T @ centred
    variance, vectors = np.linalg.eigh(covariance / len(x))
    variance, vectors = variance[::-1].clip(0), vectors[:, ::-1]
    deviation = np.sqrt(np.maximum(variance + epsilon, 1e-6 * variance[0] + 1e-30))
    matrix, inverse = vectors / deviation, (vectors * deviation).T
    if form == "zca":
        matrix, inverse = matrix @ vectors.T, vectors @ inverse
    dtype = mean.dtype
    return Preprocess(
        mean,
        np.ones((), dtype),
        matrix.astype(dtype, copy=False),
        inverse.astype(dtype, copy=False),
    )


def _float(dtype: Any) -> Any:
    """float32, or `dtype`, in native byte order, where that is a wider float."""
    if not jnp.issubdtype(dtype, jnp.floating):
        return np.dtype(np.float32)
    native = dtype if dtype.isnative else dtype.newbyteorder("=")
    return np.dtype(jnp.promote_types(native, jnp.float32))


def _blocks(x: Any) -> Iterator[np.ndarray]:
    """`x` in float64, some examples at a time: it may be bytes, or larger than the memory."""
    count = max(1, BLOCK // max(1, int(np.prod(x.shape[1:]))))
    for start in range(0, len(x), count):
        yield np.asarray(x[start : start + count], np.float64)


def _moments(x: Any, axis: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased deviation over `axis`, which begins with 0, in `_float` of the dtype of x.

    Both are computed in float64 and two passes. The deviation of a constant is 1, and its mean the
    constant itself: a mean that is off by a rounding would make a deviation of it.
    """
    x = np.asarray(x)
    if x.ndim == 0 or len(x) == 0 or 0 not in axis:
        raise ValueError(f"expected x of shape (examples, ...), got shape {np.shape(x)}.")
    count = np.prod([x.shape[i] for i in axis])
    mean = sum(block.sum(axis, keepdims=True) for block in _blocks(x)) / count
    low = functools.reduce(np.minimum, (b.min(axis, keepdims=True) for b in _blocks(x)))
    high = functools.reduce(np.maximum, (b.max(axis, keepdims=True) for b in _blocks(x)))
    mean = np.where(low == high, low, mean)
    variance = sum(np.square(block - mean).sum(axis, keepdims=True) for block in _blocks(x)) / count
    deviation = np.where(variance == 0, 1, np.sqrt(variance))
    return mean.astype(_float(x.dtype)), deviation.astype(_float(x.dtype))


def _check_images(x: Any) -> None:
    if np.ndim(x) != 4:
        raise ValueError(
            f"expected images of shape (n, height, width, channels), got {np.shape(x)}."
        )
