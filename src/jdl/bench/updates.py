"""Optimizer updates: gradients in, parameters and state replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl import optim
from jdl.bench.measurement import Measurement, chained, counts
from jdl.bench.timing import rounds

ELEMENTWISE: dict[str, Callable[[], Any]] = {
    "momentum": lambda: optim.sgd(1e-3, 0.9),
    "adam": lambda: optim.adam(1e-3),
    "adamw": lambda: optim.adamw(1e-3),
    "lion": lambda: optim.lion(1e-3),
}
MATRIX: dict[str, Callable[[], Any]] = {"muon": lambda: optim.muon(1e-3)}


def normal(shapes: Any, seed: int, scale: float) -> Any:
    """A tree of float32 arrays drawn from N(0, scale**2), for a tree of shapes.

    >>> normal({"kernel": (2, 3)}, seed=0, scale=0.1)["kernel"].shape
    (2, 3)
    """
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(np.float32(scale) * rng.standard_normal(shape, np.float32)),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def updater(optimizer: Any, params: Any, grads: Any) -> tuple[Callable[[], Any], int, int]:
    """A function that makes one update each time it is called, its FLOPs and its bytes.

    The update is compiled, with parameters and state donated. Its bytes are those of gradients
    and parameters in, parameters out, and the state both ways.

    Args:
      optimizer: any `(init, update)` whose `update` takes the keyword `value`.
      params: where it begins; donated.
      grads: of every update.
    """

    def update(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(grads, state, params, value=jnp.float32(0.7))
        return optim.apply_updates(params, updates), state

    # A state that holds the parameters themselves could not be donated with them.
    state = jax.tree.map(jnp.copy, optimizer.init(params))
    counted = counts(update, params, state, grads)
    return chained(update, (params, state), grads), *counted


def measured(
    name: str, make: Callable[[], Any], count: int, side: int, length: float
) -> Measurement:
    """An update of `count` square matrices.

    Args:
      name: of the optimizer.
      make: gives it.
      count: of matrices.
      side: rows and columns of each.
      length: seconds of a round.
    """
    shapes = [(side, side)] * count
    run, flops, moved = updater(make(), normal(shapes, 0, 0.1), normal(shapes, 1, 0.01))
    size = f"{count}x{side}x{side}"
    return Measurement("updates", name, size, "float32", 1, flops, moved, rounds(run, length))
