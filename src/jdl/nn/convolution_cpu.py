"""How a CPU computes a convolution and its two gradients, and why.

XLA:CPU has a fast kernel for a convolution that is canonical (NHWC and HWIO in memory, no
zeros between the input's pixels) and reads or writes more than 16 channels; the rest goes to
slower ones, down to a scalar loop. The pass that makes a convolution canonical does not reach
into while bodies, so that the kernel gradient of `lax.conv` takes that loop inside `lax.scan`
(32x16x16x32 to 32 channels, 3x3: 90 ms). Stated canonically by explicit transposes, output
and both gradients take 0.6 to 1.5 ms each. Products of matrices, a tap or a row of the kernel
each, are faster than that alone, but in a network, whose lanes share the caches, slower: two
lanes of ResNet-20 take 75 ms a step instead of 55.

Lanes are taken one after another: a lane's images stay in cache, and one after another is
what a core does anyway (one JAX device per core). A grouped convolution, which is what
`lax.conv` becomes under vmap over kernels, takes the slow loop.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from jdl.nn.convolution_spec import (
    LAYOUT,
    Spec,
    by_role,
    padded,
    reached,
    tap_by_tap,
    transposed,
)
from jdl.nn.sharding import vary_over, varying


def on_cpu(a: Any, b: Any, spec: Spec) -> Any:
    """Computes the missing operand from the other two, in the form XLA:CPU handles fastest."""
    if any(spec.laned):
        alone = spec._replace(laned=(False, False))
        lanes = (a if spec.laned[0] else b).shape[0]
        own = [v for v, laned in zip((a, b), spec.laned) if laned]
        if lanes == 1:
            own = [v[0] for v in own]

        def lane(own: list[Any]) -> Any:
            first = own[0] if spec.laned[0] else a
            return on_cpu(first, own[-1] if spec.laned[1] else b, alone)

        return lane(own)[None] if lanes == 1 else lax.map(lane, own)
    if a.dtype.itemsize < 4:  # half precision is emulated, and should add up in float32
        wide = on_cpu(a.astype(jnp.float32), b.astype(jnp.float32), spec)
        return wide.astype(a.dtype)
    if spec.groups > 1:
        return _grouped(a, b, spec)
    return {"output": _output, "input": _input, "kernel": _kernel}[spec.missing](a, b, spec)


def _output(x: Any, k: Any, spec: Spec) -> Any:
    fold = _fold(k, spec)
    if fold > 1:
        return _folded(x, k, spec, fold)
    if any(m > n for m, n in zip(spec.output, spec.image)):
        # The fast kernel refuses an output larger than the input.
        x, spec = padded(x, *spec.padding), spec._replace(padding=((0, 0), (0, 0)))
    return lax.conv_general_dilated(
        x, k, spec.stride, spec.padding, rhs_dilation=spec.dilation, dimension_numbers=LAYOUT
    )


def _fold(k: Any, spec: Spec) -> int:
    """How many neighbours along the width to treat as channels of one pixel.

    Takes a convolution of at most 16 channels on both sides over the fast kernel's
    threshold (32x28x28x1 to 16 channels: 0.25 ms against 0.8), at the price of a
    padded copy of the input and of zeros in the wider kernel, which 16 input
    channels do not earn back.
    """
    channels = max(k.shape[2:])
    if channels > 16 or k.shape[2] == 16 or not spec.plain:
        return 1
    fits = (f for f in (2, 4, 8, 16, 32) if f * channels > 16 and spec.output[1] % f == 0)
    return next(fits, 1)


def _folded(x: Any, k: Any, spec: Spec, f: int) -> Any:
    n, _, width, c = x.shape
    left = spec.padding[1][0]
    blocks = -(-(f - 1 + k.shape[1]) // f)  # of f pixels that f neighbouring windows cover
    total = (spec.output[1] // f + blocks - 1) * f
    x = padded(x, spec.padding[0], (left, total - width - left))
    x = x.reshape(n, x.shape[1], total // f, f * c)
    spare = f * blocks - k.shape[1]
    shifted = [jnp.pad(k, ((0, 0), (q, spare - q), (0, 0), (0, 0))) for q in range(f)]
    k = jnp.stack(shifted, axis=3).reshape(k.shape[0], blocks, f * c, -1)
    y = lax.conv_general_dilated(x, k, (1, 1), "VALID", dimension_numbers=LAYOUT)
    return y.reshape(n, *spec.output, -1)


def _input(k: Any, y: Any, spec: Spec) -> Any:
    """The output's gradient convolved with the flipped kernel, channels and features exchanged."""
    if spec.stride != (1, 1):
        return _input_by_phase(k, y, spec)
    before = [r - low for r, (low, _) in zip(spec.reach, spec.padding)]
    sizes = zip(spec.image, spec.reach, spec.output, before)
    padding = tuple((b, n + r - m - b) for n, r, m, b in sizes)
    flipped = spec._replace(missing="output", image=spec.output, padding=padding)
    return _output(y, k[::-1, ::-1].swapaxes(2, 3), flipped)


def _input_by_phase(k: Any, y: Any, spec: Spec) -> Any:
    """As `_input` for a stride: one convolution without, its phases side by side as channels.

    A pixel `stride*q + r` of the padded input is reached by the taps `stride*a + r`
    alone. Zeros between the output's pixels, the usual way, would multiply the
    operations by the strides; sums of patches take XLA:CPU ten times as long.
    """
    (down, right), (height, width) = spec.stride, spec.image
    apart = [(0, -(r + 1) % s, d - 1) for r, d, s in zip(spec.reach, spec.dilation, spec.stride)]
    k = lax.pad(k, jnp.zeros((), k.dtype), (*apart, (0, 0, 0), (0, 0, 0)))
    rows, columns = k.shape[0] // down, k.shape[1] // right
    k = k.reshape(rows, down, columns, right, *k.shape[2:]).transpose(0, 2, 1, 3, 4, 5)
    channels = k.shape[4]
    (top, left) = (low for low, _ in spec.padding)
    blocks = -(-(height + top) // down), -(-(width + left) // right)
    after = tuple(m + w - 1 - n for m, w, n in zip(spec.output, (rows, columns), blocks))
    phases = spec._replace(
        image=blocks,
        window=(rows, columns),
        stride=(1, 1),
        padding=((0, after[0]), (0, after[1])),
        dilation=(1, 1),
    )
    x = _input(k.reshape(rows, columns, -1, k.shape[5]), y, phases)
    x = x.reshape(-1, *blocks, down, right, channels).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(-1, blocks[0] * down, blocks[1] * right, channels)
    return x[:, top : top + height, left : left + width]


def _kernel(x: Any, y: Any, spec: Spec) -> Any:
    """A convolution whose window is the output's gradient, batch and channels exchanged.

    The batch is what is summed over, and with an odd one both libraries are slow
    (3x16x16x32: 0.8 ms against 0.2), so that it is filled up with zeros.
    """
    if x.shape[0] % 2 and x.shape[0] > 1:
        x, y = (jnp.concatenate([v, jnp.zeros_like(v[:1])]) for v in (x, y))
    (top, bottom), (left, right) = reached(spec)
    if -bottom >= x.shape[1] or -right >= x.shape[2]:  # no window reaches beyond the padding
        shape = (*spec.window, x.shape[3], y.shape[3])
        return vary_over(varying(x) | varying(y), jnp.zeros(shape, x.dtype))
    x = padded(x, (0, min(bottom, 0)), (0, min(right, 0)))
    swapped = spec._replace(
        missing="output",
        image=x.shape[1:3],
        window=spec.output,
        stride=spec.dilation,
        padding=((top, max(bottom, 0)), (left, max(right, 0))),
        dilation=spec.stride,
    )
    return _output(x.transpose(3, 1, 2, 0), y.transpose(1, 2, 0, 3), swapped).transpose(1, 2, 0, 3)


def _depthwise(a: Any, b: Any, spec: Spec) -> Any:
    """Tap by tap, an image after another.

    With 64 channels it takes 2.2, 2.1 and 3.5 ms (output, input, kernel; 32x16x16x64, 3x3)
    instead of the 3.3, 3.0 and 4.4 of blocks, in a step of two such layers alone 19 instead of
    25; with 32 channels it gains nothing. The loop keeps XLA from fusing what comes before
    into this, where it would be computed again for each tap: the step takes 100 ms of
    processor time then.
    """
    values = dict(zip(spec.given, (a, b)))
    images = {role: v[:, None] for role, v in values.items() if role != "kernel"}

    def one(image: dict[str, Any]) -> Any:
        first, second = (image.get(role, values[role]) for role in spec.given)
        return by_role(tap_by_tap, first, second, spec)

    out = lax.map(one, images)
    return out.sum(0) if spec.missing == "kernel" else out[:, 0]


def _grouped(a: Any, b: Any, spec: Spec) -> Any:
    """Neighbouring groups merged into blocks of up to 32 channels, the blocks taken as lanes.

    A block is an ordinary convolution whose kernel has zeros between its groups:
    0.85 ms against 2 to 7 ms (2 to 32 groups of 32x16x16x32). Blocks of 64 take 3.7, 3.8
    and 10.3 ms instead of 3.2, 3.2 and 4.5 (output, input, kernel; 4 groups of 32x16x16x64).
    """
    g = spec.groups
    shapes = spec.shapes(a.shape, b.shape)
    if g == shapes["input"][-1] == shapes["output"][-1] and g >= 64:
        return _depthwise(a, b, spec)
    values = dict(zip(spec.given, (a, b)))
    wide = shapes["input"][-1], shapes["output"][-1]
    fits = (m for m in range(g, 0, -1) if g % m == 0 and max(wide) * m // g <= 32)
    merged = next(fits, 1)
    blocks, cin, cout = g // merged, wide[0] // g, wide[1] // g

    def expand(k: Any) -> Any:
        k = k.reshape(*spec.window, cin, blocks, merged, cout)
        k = jnp.einsum("hwibmo,mn->bhwnimo", k, jnp.eye(merged, dtype=k.dtype))
        return k.reshape(blocks, *spec.window, merged * cin, merged * cout)

    def split(v: Any) -> Any:
        return jnp.moveaxis(v.reshape(*v.shape[:-1], blocks, -1), -2, 0)

    first, second = (expand(v) if role == "kernel" else split(v) for role, v in values.items())
    out = on_cpu(first, second, spec._replace(groups=1, laned=(True, True)))
    if spec.missing == "kernel":
        return transposed(expand, (*spec.window, cin, wide[1]), out)
    out = jnp.moveaxis(out, 0, -2)
    return out.reshape(*out.shape[:-2], -1)
