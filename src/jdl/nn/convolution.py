"""Convolution over images and sequences: a function, and the layer that holds its kernel."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from jdl import _checks
from jdl._promotion import promoting, widest
from jdl.nn import initializer
from jdl.nn.base import Key, Layer, Params, State, over_features, parameter_dtype
from jdl.nn.convolution_primitive import convolution_p
from jdl.nn.convolution_spec import Spec
from jdl.nn.masking import refuse_masked
from jdl.nn.sharding import along_batch, vary_over, varying

Sizes = _checks.Count | Sequence[_checks.Count]
Padding = str | _checks.Count | Sequence[_checks.Count | Sequence[_checks.Count]]


def convolve(
    x: Shaped[Array | np.ndarray, "batch *space channels"],
    kernel: Shaped[Array | np.ndarray, "*window in_channels features"],
    *,
    stride: Sizes = 1,
    padding: Padding = "SAME",
    dilation: Sizes = 1,
    groups: _checks.Count = 1,
) -> Float[Array, "batch *new_space features"]:
    """`y[n, i, o] = sum over t and c of x[n, stride*i + dilation*t - low, c] * kernel[t, c, o]`.

    `t` counts the window's taps, `low` is the padding before, and what lies outside
    of `x` is zero. Fast inside `lax.scan` and under `vmap` over kernels, where
    `lax.conv` is not on a CPU; differentiable forwards and backwards to any order.

    Args:
      x: images `(batch, height, width, channels)` or sequences `(batch, time, channels)`.
      kernel: `(kh, kw, channels/groups, features)` or `(k, channels/groups, features)`.
      stride: of the window, one number or one for each axis of space.
      padding: "VALID" (none), "SAME" (output size `ceil(size/stride)`; where the
        total is odd the greater half comes after), a number of zeros before and
        after every axis, or for each axis a number or a pair (before, after).
        torch's `padding=1` is 1, which with a stride of 2 is not "SAME".
      dilation: the distance between the window's taps.
      groups: channels and features are cut into so many groups, convolved apart.

    Returns:
      `(batch, *output space, features)` in the promoted dtype.

    Raises:
      ValueError: shapes or sizes do not fit.
      TypeError: a size is no integer, or `x` and `kernel` are not real.

    As everywhere in deep learning this is a correlation: the kernel is not flipped.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(4.0).reshape(1, 4, 1)
    >>> convolve(x, jnp.array([1.0, 10.0]).reshape(2, 1, 1), padding="VALID").ravel().tolist()
    [10.0, 21.0, 32.0]
    """
    rank = x.ndim - 2
    if rank not in (1, 2) or kernel.ndim != x.ndim:
        raise ValueError(
            "`x` and `kernel` must both have 3 axes (batch, time, channels) or 4 (batch, height, "
            f"width, channels), got shapes {x.shape} and {kernel.shape}."
        )
    groups = _checks.check_count("groups", groups)
    channels, features = x.shape[-1], kernel.shape[-1]
    if channels != groups * kernel.shape[-2] or features % groups:
        raise ValueError(
            f"With groups={groups}, {channels} channels and {features} features, `kernel` must be "
            f"(..., channels/groups, features) with both divisible by groups, got {kernel.shape}."
        )
    strides, dilations = sizes("stride", stride, rank), sizes("dilation", dilation, rank)
    space, window = x.shape[1:-1], kernel.shape[:-2]
    pads = paddings(padding, space, window, strides, dilations)
    if rank == 1:  # an image of height 1
        x, kernel = x[:, None], kernel[None]
        space, window, pads = (1, *space), (1, *window), ((0, 0), *pads)
        strides, dilations = (1, *strides), (1, *dilations)
    spec = Spec("output", space, window, strides, pads, dilations, groups)
    if min(spec.output) < 1:
        raise ValueError(
            f"`kernel` must fit into the padded input, got a window of {window} with dilation "
            f"{dilations} for {space} with padding {pads}."
        )
    dtype = widest(x.dtype, kernel.dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"`x` and `kernel` must be real floating-point arrays, got {dtype}.")
    operands = jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)
    if not x.shape[0]:
        return jnp.zeros((0, *spec.output[2 - rank :], features), dtype)
    over = frozenset[Any]().union(*map(varying, operands))
    bind = along_batch(functools.partial(convolution_p.bind, spec=spec))
    y = bind(*(vary_over(over, v) for v in operands))
    return y[:, 0] if rank == 1 else y


def conv(
    features: _checks.Count,
    kernel_size: Sizes,
    stride: Sizes = 1,
    padding: Padding = "SAME",
    dilation: Sizes = 1,
    groups: _checks.Count = 1,
    *,
    kernel_init: initializer.Initializer = initializer.lecun_normal,
    bias_init: initializer.Initializer = initializer.zeros,
    use_bias: bool = True,
) -> Layer:
    """`y = convolve(x, kernel) + bias` over images (batch, height, width, channels) or sequences.

    Not of `Masked` steps.

    Args:
      features: the number of output channels.
      kernel_size: of the window: one number for every axis of space, or one each.
      stride: as in `convolve`.
      padding: as in `convolve`.
      dilation: as in `convolve`.
      groups: as in `convolve`; equal to the input's channels it is depthwise.
      kernel_init: of the kernel `(*window, channels/groups, features)`.
      bias_init: of the bias `(features,)`.
      use_bias: whether there is one (no need before a batch norm).

    Returns:
      A layer with parameters `{"kernel", "bias"}`.

    Raises:
      ValueError, TypeError: a size is not a positive integer; at `init`, shapes do not fit.

    torch keeps the kernel as `(features, channels/groups, *window)`, and draws it as
    its dense layers.

    >>> import jax
    >>> layer = conv(16, 3, stride=2)
    >>> x = jax.ShapeDtypeStruct((8, 28, 28, 1), "float32")
    >>> params, state = layer.init(jax.random.key(0), x)
    >>> params["kernel"].shape, jax.eval_shape(layer.apply, params, state, x)[0].shape
    ((3, 3, 1, 16), (8, 14, 14, 16))
    """
    features = _checks.check_count("features", features)
    groups = _checks.check_count("groups", groups)

    @promoting
    def init(key: Key, x: Any) -> tuple[Params, State]:
        refuse_masked(x, "conv")
        kernel_key, bias_key = jax.random.split(key)
        dtype = parameter_dtype(x)
        window = sizes("kernel_size", kernel_size, len(x.shape) - 2)
        shape = (*window, x.shape[-1] // groups, features)
        params = {"kernel": kernel_init(kernel_key, shape, dtype)}
        if use_bias:
            params["bias"] = bias_init(bias_key, (features,), dtype)
        return params, {}

    @promoting
    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        y = convolve(
            x,
            params["kernel"],
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )
        if use_bias:
            y = y + over_features(params["bias"], y)
        return y, state

    return Layer(init, apply, "conv")


def paddings(
    padding: Padding,
    space: tuple[int, ...],
    window: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[tuple[int, int], ...]:
    """`padding`, in any of the forms that `convolve` takes, as a pair for each axis of space."""
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise ValueError(
                f"`padding` must be 'SAME', 'VALID', an integer, or for each axis an integer or "
                f"a pair, got padding={padding!r}."
            )
        if padding == "VALID":
            return ((0, 0),) * len(space)
        pairs = []
        for n, k, s, d in zip(space, window, stride, dilation):
            total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
            pairs.append((total // 2, total - total // 2))
        return tuple(pairs)
    axes: Any = padding if isinstance(padding, Sequence) else (padding,) * len(space)
    both = [tuple(p) if isinstance(p, Sequence) else (p, p) for p in axes]
    if len(both) != len(space) or any(len(p) != 2 for p in both):
        raise ValueError(
            f"`padding` must be an integer of at least 0, or for each of {len(space)} axes one or "
            f"a pair (before, after), got padding={padding!r}."
        )
    count = functools.partial(_checks.check_count, "padding", least=0)
    return tuple((count(before), count(after)) for before, after in both)


def sizes(name: str, value: Sizes, rank: int) -> tuple[int, ...]:
    """One positive integer for each of `rank` axes."""
    if isinstance(value, Sequence):
        if len(value) != rank:
            raise ValueError(
                f"`{name}` must be an integer or one for each of {rank} axes of space, "
                f"got {name}={value!r}."
            )
        return tuple(_checks.check_count(name, v) for v in value)
    return (_checks.check_count(name, value),) * rank
