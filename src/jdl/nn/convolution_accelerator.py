"""How a convolution and its two gradients are computed on a GPU or TPU, and why so.

`lax.conv` and its own gradients, alone. Lanes would make it a grouped convolution, whose
gradients are slow there too; a product of matrices has batches by nature.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import lax

from jdl.nn.convolution_spec import LAYOUT, Spec, patches, transposed


def on_accelerator(a: Any, b: Any, spec: Spec) -> Any:
    """What is missing, from the two that are given, in the form for GPU and TPU."""
    values = dict(zip(spec.given, (a, b)))
    alone = spec._replace(laned=(False, False))
    if any(spec.laned):
        axes = tuple(0 if laned else None for laned in spec.laned)
        form = on_accelerator if spec.groups > 1 else _product
        return jax.vmap(lambda a, b: form(a, b, alone), axes)(a, b)

    def conv(x: Any, k: Any) -> Any:
        return lax.conv_general_dilated(
            x,
            k,
            spec.stride,
            spec.padding,
            rhs_dilation=spec.dilation,
            feature_group_count=spec.groups,
            dimension_numbers=LAYOUT,
        )

    return _by_role(conv, values, spec)


def _product(a: Any, b: Any, spec: Spec) -> Any:
    """The convolution as a product of patches and the kernel as a matrix."""

    def conv(x: Any, k: Any) -> Any:
        return patches(x, spec) @ k.reshape(-1, k.shape[-1])

    return _by_role(conv, dict(zip(spec.given, (a, b))), spec)


def _by_role(conv: Any, values: dict[str, Any], spec: Spec) -> Any:
    """`conv(x, k)`, or its transpose in the one that is missing."""
    if spec.missing == "output":
        return conv(values["input"], values["kernel"])
    a, b = values.values()
    shape, y = spec.shapes(a.shape, b.shape)[spec.missing], values["output"]
    if spec.missing == "input":
        return transposed(lambda x: conv(x, values["kernel"]), shape, y)
    return transposed(lambda k: conv(values["input"], k), shape, y)
