"""One operation of a traced program, evaluated by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax.extend import core


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
