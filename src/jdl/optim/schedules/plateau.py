"""A rate that falls when the validation loss stops falling, as explicit state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jdl._checks import check_number
from jdl._promotion import promoting
from jdl.optim.base import at_step


class PlateauState(NamedTuple):
    """What `Plateau.update` needs from one report to the next.

    Attributes:
      scale: what the rate is multiplied by now, 1 at the start.
      best: the loss to beat.
      bad: reports in a row that did not beat it.
      cooldown: reports that do not count before the next one that does.
    """

    scale: Float[Array, ""]
    best: Float[Array, ""]
    bad: Int[Array, ""]
    cooldown: Int[Array, ""]


class Plateau(NamedTuple):
    """Two pure functions, called at each report of a validation loss, not at each step.

    Attributes:
      init: `init() -> state`.
      update: `update(loss, state) -> state`; multiply the rate by `state.scale`.
    """

    init: Callable[[], PlateauState]
    update: Callable[[Any, PlateauState], PlateauState]


def plateau(
    factor: Any = 0.1,
    patience: Any = 10,
    rtol: Any = 1e-4,
    atol: Any = 0.0,
    cooldown: Any = 0,
    min_scale: Any = 0.0,
    previous: bool = False,
) -> Plateau:
    """Multiplies the rate by `factor` after `patience` reports without a better loss.

        better: loss < (1 - rtol) * best - atol
        after patience reports in a row that are not (and are no cooldown):
        scale = max(scale * factor, min_scale)

    "Halve when the validation loss is worse than at the end of the previous epoch"
    is `plateau(0.5, patience=1, rtol=0.0, previous=True)`. A loss that is NaN is
    worse than any and is not compared with.

    Args:
      factor: in (0, 1], 1 is off.
      patience: an integer in [1, inf).
      rtol: in [0, 1), 0 is off.
      atol: in [0, inf), 0 is off.
      cooldown: reports after a reduction that do not count, an integer in [0, inf).
      min_scale: in [0, 1], 0 is off.
      previous: whether to compare with the report before instead of the best, and
        to let an equal loss pass.

    Returns:
      A `Plateau`; every number may be traced, so a lane has its own.

    Defaults as optax's `reduce_on_plateau`, which is an optimizer that is given the
    loss at each step; torch's `ReduceLROnPlateau` reduces one report later
    (`patience + 1`) for the same `patience`.

    >>> halving = plateau(0.5, patience=1, rtol=0.0, previous=True)
    >>> state = halving.init()
    >>> for loss in (1.0, 0.8, 0.9, 0.7):
    ...     state = halving.update(loss, state)
    >>> float(state.scale)  # build the step's optimizer with `rate * state.scale`
    0.5
    """
    check_number("factor", factor, "(0, 1]")
    check_number("patience", patience, "[1, inf)")
    check_number("rtol", rtol, "[0, 1)")
    check_number("atol", atol, "[0, inf)")
    check_number("cooldown", cooldown, "[0, inf)")
    check_number("min_scale", min_scale, "[0, 1]")

    @promoting
    def init() -> PlateauState:
        zero = jnp.zeros((), jnp.int32)
        return PlateauState(jnp.ones(()), jnp.full((), jnp.inf), zero, jnp.zeros_like(zero))

    @promoting
    def update(loss: Any, state: PlateauState) -> PlateauState:
        loss = at_step(loss, 0)
        bar = (1 - at_step(rtol, 0)) * state.best - at_step(atol, 0)
        better = loss <= bar if previous else loss < bar
        resting = state.cooldown > 0
        bad = jnp.where(better | resting, 0, state.bad + 1)
        reduce = bad >= jnp.asarray(patience)
        lower = jnp.maximum(state.scale * at_step(factor, 0), at_step(min_scale, 0))
        kept = jnp.where(~jnp.isnan(loss) if previous else better, loss, state.best)
        rest = jnp.where(reduce, jnp.asarray(cooldown), jnp.maximum(state.cooldown - 1, 0))
        return PlateauState(
            scale=jnp.where(reduce, lower, state.scale).astype(state.scale.dtype),
            best=kept.astype(state.best.dtype),
            bad=jnp.where(reduce, 0, bad).astype(state.bad.dtype),
            cooldown=rest.astype(state.cooldown.dtype),
        )

    return Plateau(init, update)
