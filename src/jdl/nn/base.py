"""The layer: a pair of pure functions from which every model is composed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from jdl._promotion import at_least_float32

Params = PyTree
State = PyTree
Key = Any
Number = Any
"""A Python number or a traced scalar: what every numeric argument of a layer may be."""


class Apply(Protocol):
    """`apply(params, state, x, *, key=None, train=False) -> (y, state)`."""

    def __call__(
        self, params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        """Gives the output and the next state (the same state unless training changes it)."""
        ...


class Layer(NamedTuple):
    """A layer, or a whole model, as two pure functions.

    Attributes:
      init: `init(key, x) -> (params, state)`; `x` is a batch or its
        `jax.ShapeDtypeStruct`, batch axis first. `state` is what training
        changes and gradients do not, and `{}` for most layers.
      apply: `apply(params, state, x, *, key=None, train=False) -> (y, state)`.
      name: what summaries and diagnostics call it.
      parts: the layers that it is composed of, in order; empty for most.
      flow: how a composed layer passes its input through its parts: `apply`
        with the function that calls a part given first (see `composed`), so
        that a summary or a diagnostic sees what every part was given and gave.
    """

    init: Callable[[Key, Any], tuple[Params, State]]
    apply: Apply
    name: str = "layer"
    parts: tuple[Layer, ...] = ()
    flow: Callable[..., tuple[Any, State]] | None = None


class Masked(NamedTuple):
    """A batch of sequences of unequal lengths, padded to one length.

    Attributes:
      values: tokens `(batch, time)` or features `(batch, time, features)`.
      mask: `(batch, time)`, true where a step is real. Sequences begin at step
        0, so that a row is some trues followed by falses.
    """

    values: Any
    mask: Bool[Array, "batch time"]


def call(
    index: int, layer: Layer, params: Params, state: State, x: Any, *, key: Key | None, train: bool
) -> tuple[Any, State]:
    """Applies part `index` of a composed layer; this is the `call` of `flow` by default."""
    with jax.named_scope(layer.name):
        return layer.apply(params, state, x, key=key, train=train)


def composed(
    init: Callable[[Key, Any], tuple[Params, State]],
    flow: Callable[..., tuple[Any, State]],
    name: str,
    parts: tuple[Layer, ...],
) -> Layer:
    """A layer made of `parts`; only `flow` describes the path through them.

    Args:
      init: as in `Layer`.
      flow: `flow(call, params, state, x, *, key, train) -> (y, state)`, which
        applies part `i` by `call(i, parts[i], its_params, its_state, its_x,
        key=its_key, train=train)` and by nothing else.
      name: the layer's name.
      parts: the layers it is composed of.
    """

    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        return flow(call, params, state, x, key=key, train=train)

    return Layer(init, apply, name, parts, flow)


def output_shape(layer: Layer, params: Params, state: State, x: Any) -> Any:
    """The `jax.ShapeDtypeStruct` of the layer's output in evaluation; nothing is computed."""
    return jax.eval_shape(lambda p, s, v: layer.apply(p, s, v)[0], params, state, x)


def part_key(key: Key | None, index: int) -> Key | None:
    """The key of part `index`: its position folded in; None stays None."""
    return None if key is None else jax.random.fold_in(key, index)


def parameter_dtype(x: Any) -> Any:
    """The dtype of the parameters of a layer that reads `x`: float32, or wider where `x` is."""
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    if not jnp.issubdtype(dtype, jnp.inexact):
        return jax.dtypes.canonicalize_dtype(float)
    return at_least_float32(dtype)


def as_floating(x: Any) -> Any:
    """`x` itself where it is floating; integers in the dtype of a layer's parameters.

    Pixels and counts come in narrow integers, into which no result may be cast back.
    """
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(parameter_dtype(x))


def in_float32(number: Number, x: Array) -> Array:
    """`number` as an array in float32 or, where `x` is wider, the dtype of `x`.

    A Python number and a traced one then meet `x` in the same precision.
    """
    return jnp.asarray(number, at_least_float32(x))


def over_features(vector: Array, x: Array) -> Array:
    """`vector`, one number per feature, with axes of length 1 added in front to the rank of `x`."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)
