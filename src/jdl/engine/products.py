"""The bytes that the matrix products and convolutions of a traced program write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.extend import core

PRODUCTS = {"dot_general", "conv_general_dilated", "jdl_convolution"}


def product_bytes(jaxpr: Any) -> int:
    """The bytes of the outputs of all products, those of a scan counted once for each iteration.

    What lies between products is mostly fused with them, so this tells how much
    memory a training step moves and holds: activations, their gradients, and the
    parameters' gradients.

    Args:
      jaxpr: of the program.

    >>> import jax, jax.numpy as jnp
    >>> program = jax.make_jaxpr(lambda x, w: jax.nn.relu(x @ w))
    >>> product_bytes(program(jnp.ones((4, 8)), jnp.ones((8, 3))).jaxpr)  # 4 x 3 float32
    48
    """
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name in PRODUCTS:
            total += sum(_bytes(v.aval) for v in equation.outvars)
        inner = [product_bytes(program) for program in _programs(params)]
        once = max(inner, default=0) if name == "cond" else sum(inner)
        total += once * params.get("length", 1)
    return total


def _bytes(aval: Any) -> int:
    return int(np.prod(aval.shape)) * aval.dtype.itemsize


def _programs(params: dict[str, Any]) -> Iterator[Any]:
    """The programs that an operation runs."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else [value]:
            if isinstance(part, core.ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, core.Jaxpr):
                yield part
