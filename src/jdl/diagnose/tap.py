"""Taps, which read the output of every layer from the traced program of any function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdl._operation import PRODUCTS, evaluated

_MONOTONE = {"tanh": "tanh", "logistic": "sigmoid"}
# Their inner tanh or sigmoid is a gate, which may saturate without harm.
_GATED = {"gelu", "silu", "swish", "elu", "selu", "celu", "softplus", "log_softmax", "softmax"}


class Site(NamedTuple):
    """One place in a model.

    Attributes:
      name: its position among the sites and what it is, as "3 relu" or "2 dense".
      kind: "linear" (a product with a matrix, or a convolution, before its
        bias), "relu", "tanh" or "sigmoid".
      y: the output, batch axis first.
    """

    name: str
    kind: str
    y: Any


def tap(
    function: Callable[..., Any], *args: Any, nudges: Sequence[Any] | None = None
) -> tuple[Any, list[Site]]:
    """`function(*args)`, and the output at each site on the way.

    The function is traced, and its program is evaluated operation by operation.
    The model needs no additions and may be written with any library. A loop (the
    steps of a recurrent net) counts as one operation, whose inside is not seen.
    Works under `jit`, `vmap` and `grad`.

    Args:
      function: of arrays, as `lambda state, batch: trial.evaluate(state, batch)`.
      args: trees of arrays.
      nudges: one array for each site, added to its output; the derivative with
        respect to it is the gradient that arrives at the site.

    Returns:
      The function's output and the sites in the order of computation: products
      with at least two axes, ReLUs, tanhs and sigmoids.

    >>> import jax.numpy as jnp
    >>> from jdl import nn
    >>> model = nn.chain(nn.dense(3), nn.relu, nn.dense(2))
    >>> params, state = model.init(jax.random.key(0), jnp.zeros((4, 5)))
    >>> y, sites = tap(lambda p, x: model.apply(p, state, x)[0], params, jnp.ones((4, 5)))
    >>> [(site.name, site.y.shape) for site in sites]
    [('0 dense', (4, 3)), ('1 relu', (4, 3)), ('2 dense', (4, 2))]
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    sites: list[Site] = []

    def seen(kind: str, label: str, y: Any) -> Any:
        if getattr(y, "ndim", 0) < 2 or not jnp.issubdtype(y.dtype, jnp.floating):
            return y
        if nudges is not None:
            y = y + nudges[len(sites)].astype(y.dtype)
        sites.append(Site(f"{len(sites)} {label}", kind, y))
        return y

    out = _go(closed.jaxpr, closed.consts, jax.tree.leaves(args), seen, "")
    return jax.tree.unflatten(jax.tree.structure(shape), out), sites


def _go(
    jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], seen: Callable[..., Any], scope: str
) -> list[Any]:
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= zip(jaxpr.invars, args, strict=True)
    cubes: set[Any] = set()  # of x: what the tanh form of GELU is made of

    def read(v: Any) -> Any:
        return v.val if hasattr(v, "val") else values[v]

    for equation in jaxpr.eqns:
        given = [read(v) for v in equation.invars]
        name, params = equation.primitive.name, equation.params
        label = str(equation.source_info.name_stack).rpartition("/")[2] or scope
        inner = params.get("jaxpr") if name in ("jit", "pjit", "closed_call") else None
        if inner is not None and params.get("name") not in {"relu", *_GATED}:
            out = _go(inner.jaxpr, inner.consts, given, seen, label)
        else:
            out = evaluated(jaxpr, equation, read)
        kind = _kind(equation, cubes)
        if kind is not None:
            plain = {"linear": "conv" if "conv" in name else "dot"}.get(kind, kind)
            out = [seen(kind, label or plain, out[0])]
        if _is_cube(equation, cubes):
            cubes |= {*equation.outvars}
        values |= zip(equation.outvars, out, strict=True)
    return [read(v) for v in jaxpr.outvars]


def _kind(equation: Any, cubes: set[Any]) -> str | None:
    name = equation.primitive.name
    if name == "dot_general" and equation.params["dimension_numbers"][1][0]:
        return None  # of two activations, as attention's scores
    if name in PRODUCTS:
        return "linear"
    if name in _MONOTONE:
        gate = any(v in cubes for v in equation.invars if not hasattr(v, "val"))
        return None if gate else _MONOTONE[name]
    if name == "max" and any(hasattr(v, "val") and np.all(v.val == 0) for v in equation.invars):
        return "relu"
    inner = equation.params.get("call_jaxpr", equation.params.get("jaxpr"))
    if equation.params.get("name") == "relu":
        return "relu"
    if name == "custom_jvp_call" and inner is not None:
        calls = [e.params.get("name") for e in inner.jaxpr.eqns]
        return "relu" if calls == ["relu"] else None
    return None


def _is_cube(equation: Any, cubes: set[Any]) -> bool:
    name = equation.primitive.name
    if name == "integer_pow":
        return bool(equation.params["y"] == 3)
    return name in ("mul", "add") and any(
        v in cubes for v in equation.invars if not hasattr(v, "val")
    )
