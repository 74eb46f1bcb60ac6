"""How a convolution and its two gradients are computed on a GPU or TPU, and why so.

Alone it is `lax.conv` and its own gradients. Lanes would make it a grouped convolution, whose
gradients are slow there too; a product of matrices has batches by nature. Patches of a whole
window are copies of every pixel, nine for 3x3; gathered along one axis and added up along the
other, `y[i] = sum over a of (patches of row i + a) @ kernel[a]` with all `a` in one product,
there are three copies of the input and three of the output.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jdl.nn.convolution_spec import LAYOUT, Spec, by_role, seen, tap_by_tap


def on_accelerator(a: Any, b: Any, spec: Spec) -> Any:
    """What is missing, from the two that are given, in the form for GPU and TPU."""
    if any(spec.laned):
        if spec.missing == "kernel":
            # Or else what the forward gathered of `a` would be kept for this, which is what
            # takes memory; to gather it again takes little.
            a, _ = lax.optimization_barrier((a, b))
        axes = tuple(0 if laned else None for laned in spec.laned)
        alone = spec._replace(laned=(False, False))
        return jax.vmap(lambda a, b: by_role(_products, a, b, alone), axes)(a, b)
    return by_role(_lax, a, b, spec)


def _lax(x: Any, k: Any, spec: Spec) -> Any:
    return lax.conv_general_dilated(
        x,
        k,
        spec.stride,
        spec.padding,
        rhs_dilation=spec.dilation,
        feature_group_count=spec.groups,
        dimension_numbers=LAYOUT,
    )


def _products(x: Any, k: Any, spec: Spec) -> Any:
    """Products of pixels and the kernel as a matrix, with as few copies of pixels as possible."""
    groups, (down, across), features = spec.groups, spec.window, k.shape[3]
    if groups == x.shape[3] == features:
        return tap_by_tap(x, k, spec)
    if groups > 1:
        x, k = (v.reshape(*v.shape[:3], groups, -1) for v in (x, k))
        form = functools.partial(_products, spec=spec._replace(groups=1))
        y = jax.vmap(form, (3, 3), 3)(x, k)
        return y.reshape(*y.shape[:3], -1)
    rows, columns = (functools.partial(seen, spec=spec, axis=axis) for axis in (0, 1))
    gathered = across * x.shape[3]
    if spec.output[0] * down * gathered <= spec.image[0] * (gathered + down * features):
        x = jnp.concatenate([rows(x, i) for i in range(down)], axis=3)
        k = k.transpose(1, 0, 2, 3).reshape(1, across, -1, features)
        down = 1
    x = jnp.concatenate([columns(x, j) for j in range(across)], axis=3)
    y = x @ k.transpose(1, 2, 0, 3).reshape(x.shape[3], -1)
    if down == 1:
        return y
    return sum(rows(part, i) for i, part in enumerate(lax.split(y, [features] * down, 3)))
