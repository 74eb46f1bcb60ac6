"""The layer: a pair of pure functions from which every model is composed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from jaxtyping import PyTree

Params = PyTree
State = PyTree
Key = Any


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
    """

    init: Callable[[Key, Any], tuple[Params, State]]
    apply: Apply
    name: str = "layer"
    parts: tuple[Layer, ...] = ()
