"""What a model is made of: each layer's output, parameters, state, operations and bytes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdl import tree
from jdl._operation import total
from jdl.nn.base import Key, Layer, Params, State


class Call(NamedTuple):
    """One application of one part of a model.

    Attributes:
      path: the positions that lead to the part, outermost first.
      layer: the part.
      params: what it was given.
      state: what it was given.
      x: its input.
      y: its output.
    """

    path: tuple[int, ...]
    layer: Layer
    params: Params
    state: State
    x: Any
    y: Any


class Row(NamedTuple):
    """One line of a summary.

    Attributes:
      path: the positions that lead to the layer, outermost first; () is the model.
      name: the layer's name.
      output: its output's shape.
      parameters: how many numbers.
      state: how many numbers.
      flops: floating-point operations of one application in evaluation, an
        addition and a multiplication counted as two.
      bytes: of parameters, state and output together.
    """

    path: tuple[int, ...]
    name: str
    output: Any
    parameters: int
    state: int
    flops: int
    bytes: int


class Summary(NamedTuple):
    """The rows of a model, the model itself first; `str` gives the table."""

    rows: tuple[Row, ...]

    def __str__(self) -> str:
        """The rows as an aligned table, each part indented under what it is part of."""
        header = ("layer", "output", "parameters", "state", "FLOPs", "bytes")
        lines = [header] + [
            (
                "  " * len(row.path) + row.name,
                str(row.output),
                *(f"{n:,}" for n in (row.parameters, row.state, row.flops, row.bytes)),
            )
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if index < 2 else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


def record(
    layer: Layer,
    params: Params,
    state: State,
    x: Any,
    *,
    key: Key | None = None,
    train: bool = False,
) -> tuple[Any, State, list[Call]]:
    """`layer.apply`, and what each part was given and gave, in the order of the calls.

    A composed part stands before its own parts; the model itself, of path `()`,
    stands first. Works under `jit`, where a call's values are traced.
    """
    calls: list[Any] = []

    def at(path: tuple[int, ...]) -> Callable[..., Any]:
        def observed(
            index: int, part: Layer, p: Params, s: State, v: Any, *, key: Any, train: bool
        ) -> tuple[Any, State]:
            return visit((*path, index), part, p, s, v, key, train)

        return observed

    def visit(
        path: tuple[int, ...], part: Layer, p: Params, s: State, v: Any, key: Any, train: bool
    ) -> tuple[Any, State]:
        place = len(calls)
        calls.append(None)
        if part.flow is None:
            y, after = part.apply(p, s, v, key=key, train=train)
        else:
            y, after = part.flow(at(path), p, s, v, key=key, train=train)
        calls[place] = Call(path, part, p, s, v, y)
        return y, after

    y, after = visit((), layer, params, state, x, key, train)
    return y, after, calls


def summary(layer: Layer, x: Any) -> Summary:
    """What `layer` is made of, for inputs of the shape of `x`; nothing is computed.

    Args:
      layer: the model.
      x: a batch or its `jax.ShapeDtypeStruct`.

    >>> import jax
    >>> from jdl import nn
    >>> model = nn.chain(nn.dense(32), nn.relu, nn.dense(10), name="mlp")
    >>> print(nn.summary(model, jax.ShapeDtypeStruct((1, 64), "float32")))
    layer    output   parameters  state  FLOPs  bytes
    mlp      (1, 10)       2,410      0  4,810  9,680
      dense  (1, 32)       2,080      0  4,128  8,448
      relu   (1, 32)           0      0     32    128
      dense  (1, 10)         330      0    650  1,360
    """
    x = jax.eval_shape(lambda v: v, x)
    params, state = jax.eval_shape(layer.init, jax.random.key(0), x)
    rows: list[Row] = []

    def visit(params: Params, state: State, x: Any) -> None:
        for call in record(layer, params, state, x)[2]:
            held = tree.nbytes((call.params, call.state, call.y))
            shapes = jax.tree.map(lambda leaf: leaf.shape, call.y)
            function, args = call.layer.apply, (call.params, call.state, call.x)
            rows.append(
                Row(
                    call.path,
                    call.layer.name,
                    shapes,
                    tree.size(call.params),
                    tree.size(call.state),
                    flops(lambda *a, f=function: f(*a)[0], *args),
                    held,
                )
            )

    jax.eval_shape(visit, params, state, x)
    return Summary(tuple(rows))


def flops(function: Callable[..., Any], *args: Any) -> int:
    """The floating-point operations of `function(*args)`, counted from its jaxpr.

    Products of matrices and convolutions count an addition and a multiplication
    each, reductions one operation per input element, other arithmetic one per
    output element. A scan counts its body as often as it runs; of a conditional
    the dearest branch counts, and of a while loop one turn.

    >>> import jax.numpy as jnp
    >>> flops(jnp.dot, jnp.ones((2, 3)), jnp.ones((3, 5)))
    60
    """
    return total(jax.make_jaxpr(function)(*args).jaxpr, _operations)


# Moves and comparisons of data, which compute nothing.
_FREE = """
bitcast_convert_type broadcast_in_dim concatenate convert_element_type copy dynamic_slice
dynamic_update_slice expand_dims gather iota pad reshape rev select_n slice split squeeze
stack stop_gradient tile transpose unstack
"""


def _operations(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    out = sum(math.prod(v.aval.shape) for v in equation.outvars if hasattr(v.aval, "shape"))
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2 * out * math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        per_output = math.prod(kernel) // kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2 * out * per_output
    if name == "jdl_convolution":
        return params["spec"].operations(*(v.aval.shape for v in equation.invars))
    if name in _FREE.split():
        return 0
    if re.match("reduce_|arg|cum", name):
        return math.prod(equation.invars[0].aval.shape)
    floating = any(
        jnp.issubdtype(getattr(v.aval, "dtype", np.bool_), np.inexact) for v in equation.outvars
    )
    return out if floating else 0
