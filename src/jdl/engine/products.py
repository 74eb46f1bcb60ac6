"""The bytes that the products of a traced program write."""

from __future__ import annotations

from typing import Any

import numpy as np

from jdl._operation import PRODUCTS, total


def product_bytes(jaxpr: Any) -> int:
    """The bytes of the outputs of all products of matrices and convolutions.

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

    def written(equation: Any) -> int:
        if equation.primitive.name not in PRODUCTS:
            return 0
        outputs = [v.aval for v in equation.outvars]
        return sum(int(np.prod(a.shape)) * a.dtype.itemsize for a in outputs)

    return total(jaxpr, written)
