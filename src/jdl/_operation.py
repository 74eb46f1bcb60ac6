"""The operations of a traced program: which are products, what they cost, what one gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax.extend import core

PRODUCTS = {"dot_general", "conv_general_dilated", "jdl_convolution"}
"""Products of matrices, and convolutions."""


def total(jaxpr: Any, cost: Callable[[Any], int]) -> int:
    """The sum of `cost(equation)` over the operations of a program.

    A scan counts its body as often as it runs; of a conditional the dearest branch
    counts, and of a while loop one turn.
    """

    def of(equation: Any) -> int:
        name, params = equation.primitive.name, equation.params
        inner = [total(program, cost) for value in params.values() for program in _programs(value)]
        if not inner:
            return cost(equation)
        if name == "scan":
            return params["length"] * sum(inner)
        return max(inner) if name == "cond" else sum(inner)

    return sum(map(of, jaxpr.eqns))


def _programs(value: Any) -> list[Any]:
    values = value if isinstance(value, tuple | list) else [value]
    found = [getattr(v, "jaxpr", v) for v in values]
    return [program for program in found if hasattr(program, "eqns")]


def evaluated(jaxpr: Any, equation: Any, read: Callable[[Any], Any]) -> list[Any]:
    """The results of one operation, evaluated by JAX itself as a program of its own.

    Args:
      jaxpr: the program.
      equation: of it.
      read: gives the value of a variable.
    """
    given = list(dict.fromkeys(v for v in equation.invars if not isinstance(v, core.Literal)))
    alone = jaxpr.replace(
        constvars=[],
        invars=given,
        outvars=equation.outvars,
        eqns=[equation],
        effects=equation.effects,
        debug_info=jaxpr.debug_info._replace(arg_names=None, result_paths=None),
    )
    return list(core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*map(read, given)))
