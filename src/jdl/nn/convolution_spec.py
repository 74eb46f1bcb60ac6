"""What of a convolution is static, and which pixels meet which: `Spec`.

A convolution is trilinear: `T(x, k, y) = sum(y * conv(x, k))`. The output, the
gradient of the input and the gradient of the kernel are `T` differentiated by
`y`, `x` and `k`; each is a function of the other two, told by `Spec.missing`
which is wanted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jdl.nn.sharding import vary_over, varying

Sizes = tuple[int, ...]
Shape = tuple[int, ...]
ROLES = ("input", "kernel", "output")
LAYOUT = ("NHWC", "HWIO", "NHWC")


class Spec(NamedTuple):
    """What of a convolution is static.

    Attributes:
      missing: which of `ROLES` is computed from the other two.
      image: height and width of the input.
      window: height and width of the kernel.
      stride: of the window over the input.
      padding: `((top, bottom), (left, right))`, zeros added to the input.
      dilation: distance between the kernel's taps.
      groups: in how many groups the channels are convolved apart.
      laned: for each of the two operands, whether it has a leading axis of
        lanes, each of which is convolved apart; the result has one if any has.
    """

    missing: str
    image: Sizes
    window: Sizes
    stride: Sizes
    padding: tuple[tuple[int, int], ...]
    dilation: Sizes
    groups: int
    laned: tuple[bool, ...] = (False, False)

    @property
    def given(self) -> tuple[str, str]:
        """The roles of the two operands, in order."""
        first, second = (role for role in ROLES if role != self.missing)
        return first, second

    @property
    def reach(self) -> Sizes:
        """Height and width of the dilated window, less one."""
        return tuple(d * (k - 1) for d, k in zip(self.dilation, self.window))

    @property
    def output(self) -> Sizes:
        """Height and width of the output."""
        sizes = zip(self.image, self.padding, self.reach, self.stride)
        return tuple((n + sum(p) - r - 1) // s + 1 for n, p, r, s in sizes)

    def shapes(self, a: Shape, b: Shape) -> dict[str, Shape]:
        """The shapes of all three without lanes, from those of the two operands."""
        given = zip(self.given, (a, b), self.laned)
        known = {role: shape[1:] if laned else shape for role, shape, laned in given}
        if self.missing == "kernel":
            missing: Shape = (*self.window, known["input"][-1] // self.groups, known["output"][-1])
        elif self.missing == "output":
            missing = (known["input"][0], *self.output, known["kernel"][-1])
        else:
            missing = (known["output"][0], *self.image, known["kernel"][-2] * self.groups)
        return {**known, self.missing: missing}

    def lanes(self, a: Shape, b: Shape) -> Shape:
        """The result's leading axis of lanes, if it has one, as a shape."""
        return next((v[:1] for v, laned in zip((a, b), self.laned) if laned), ())

    def operations(self, a: Shape, b: Shape) -> int:
        """Additions and multiplications: each output pixel meets each weight of a feature."""
        shapes = self.shapes(a, b)
        weights = math.prod(shapes["kernel"][:-1])
        return 2 * math.prod(self.lanes(a, b)) * math.prod(shapes["output"]) * weights

    @property
    def plain(self) -> bool:
        """Whether neither stride nor dilation skips anything."""
        return self.stride == self.dilation == (1, 1)


def reached(spec: Spec) -> tuple[tuple[int, int], tuple[int, int]]:
    """The padding to the last pixel that a window reads: negative where the stride leaves some."""
    before = [low for low, _ in spec.padding]
    sizes = zip(spec.image, before, spec.reach, spec.output, spec.stride)
    after = [(m - 1) * s + 1 + r - n - low for n, low, r, m, s in sizes]
    return (before[0], after[0]), (before[1], after[1])


def padded(x: Any, rows: tuple[int, int], columns: tuple[int, int]) -> Any:
    """`x` with zeros before and after its rows and columns; cropped where negative."""
    edges = ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0))
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


def transposed(linear: Callable[[Any], Any], shape: tuple[int, ...], cotangent: Any) -> Any:
    """The transpose of a linear function of an array of `shape`."""
    zeros = vary_over(varying(cotangent), jnp.zeros(shape, cotangent.dtype))
    return jax.linear_transpose(linear, zeros)(cotangent)[0]


def by_role(form: Any, a: Any, b: Any, spec: Spec) -> Any:
    """`form(x, k, spec)`, or its transpose in the one that is missing."""
    if spec.missing == "output":
        return form(a, b, spec)
    shape = spec.shapes(a.shape, b.shape)[spec.missing]
    if spec.missing == "input":
        return transposed(lambda x: form(x, a, spec), shape, b)
    return transposed(lambda k: form(a, k, spec), shape, b)


def tap_by_tap(x: Any, k: Any, spec: Spec) -> Any:
    """A depthwise convolution: no sum over channels, and so one pass of elementwise operations."""
    (down, across), rows = spec.window, [seen(x, i, spec, 0) for i in range(spec.window[0])]
    taps = itertools.product(range(down), range(across))
    return sum(seen(rows[i], j, spec, 1) * k[i : i + 1, j : j + 1] for i, j in taps)


def seen(x: Any, tap: int, spec: Spec, axis: int) -> Any:
    """Of `x`, along an axis of space, the pixels that a tap of the window reads: one an output."""
    first = tap * spec.dilation[axis] - spec.padding[axis][0]
    last = first + (spec.output[axis] - 1) * spec.stride[axis]
    edges = [(0, 0, 0)] * 4
    edges[1 + axis] = (-first, last + 1 - spec.image[axis], 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), edges)
    return lax.slice_in_dim(x, 0, None, spec.stride[axis], 1 + axis)
