"""Pure functions of one lane, which start, train, report and evaluate a trial."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt32

from jdl.data.batches import batch_indices, take
from jdl.engine.guard import guarded
from jdl.engine.keys import Keys
from jdl.engine.trial import Batch, Metrics, State, Trial, evaluate_split
from jdl.engine.workload import Workload

RUNS, EMPTY = -1, -2  # in place of the step that failed


class Lanes(NamedTuple):
    """The state of a lane between segments; on the devices every leaf has a leading lane axis."""

    state: State  # the trial's own, at its last finite step, keys as words
    step: Int[Array, " lanes"]  # steps taken
    diverged: Int[Array, " lanes"]  # the step that failed, -1 while none has, -2 without a trial
    first_loss: Array  # loss at step 0, which growth is measured against


def start_lane(trial: Trial, batch: Batch, key: Any) -> Lanes:
    """A lane at step 0 of `trial`.

    Args:
      trial: as `Workload.trial` gives it.
      batch: a training batch, or its shapes.
      key: of the initialisation.
    """
    state = trial.init(key, batch)
    return Lanes(state, jnp.int32(0), jnp.int32(RUNS), jnp.float32(0))


def train_step(
    trial: Trial, lane: Lanes, batch: Batch, key: Any, diverged_above: float
) -> tuple[Lanes, Metrics]:
    """One training step of a lane, which stays at its last finite state once it has diverged.

    Args:
      trial: as `Workload.trial` gives it.
      lane: before the step.
      batch: of examples.
      key: of the step.
      diverged_above: the loss, in multiples of the first, that counts as divergence.

    Returns:
      The lane after the step, and the step's metrics, NaN where it has diverged.
    """

    def first_loss(metrics: Metrics) -> Any:
        if "loss" not in metrics:
            return lane.first_loss
        loss = jnp.asarray(metrics["loss"], jnp.float32)
        return jnp.where(lane.step == 0, loss, lane.first_loss)

    def sound(metrics: Metrics) -> Any:
        values = {name: jnp.asarray(m, jnp.float32) for name, m in metrics.items()}
        finite = jnp.stack([jnp.isfinite(m) for m in values.values()]).all()
        if "loss" in values:
            first = first_loss(metrics)
            finite &= values["loss"] <= diverged_above * jnp.maximum(jnp.abs(first), 1.0)
        return finite & (lane.diverged == RUNS)

    state, metrics, ok = guarded(trial.step, sound, lane.state, batch, key)
    lane = Lanes(
        state=state,
        step=jnp.where(ok, lane.step + 1, lane.step),
        diverged=jnp.where(ok | (lane.diverged != RUNS), lane.diverged, lane.step),
        first_loss=first_loss(metrics),
    )
    return lane, {
        name: jnp.where(ok, jnp.asarray(m, jnp.float32), jnp.nan) for name, m in metrics.items()
    }


def step_words(key: Any, step: Any, steps: int) -> UInt32[Array, "steps words"]:
    """The keys `fold_in(key, step)` of `steps` steps from `step` on, as words.

    The key-reuse checker mistakes the axis of scanned typed keys for a second use.
    """
    numbers = step + jnp.arange(steps, dtype=jnp.int32)
    return jax.vmap(lambda n: jax.random.key_data(jax.random.fold_in(key, n)))(numbers)


def train_steps(
    trial: Trial,
    lane: Lanes,
    train: Batch,
    indices: Int[Any, "steps batch"],
    key: Any,
    diverged_above: float,
    unroll: int = 1,
    draws: bool = True,
) -> tuple[Lanes, Metrics]:
    """One training step of a lane for each row of `indices`; the metrics of every step.

    Args:
      trial: as `Workload.trial` gives it.
      lane: before the steps.
      train: the training split.
      indices: the examples of each batch.
      key: the trial's typed key; each step folds in its number.
      diverged_above: as in `train_step`.
      unroll: steps per iteration of the compiled loop.
      draws: whether the step uses its key; without, none is made.
    """

    def take_step(lane: Lanes, index: Array, own: Any) -> tuple[Lanes, Metrics]:
        return train_step(trial, lane, take(train, index), own, diverged_above)

    if not draws:
        return jax.lax.scan(
            lambda lane, index: take_step(lane, index, key), lane, indices, unroll=unroll
        )
    # All keys are made before the scan. Inside it each would be a kernel of its own, as would
    # the indices (an MLP 64-32-10 at 8 lanes: 6.3 us a trial-step against 4.6).
    words = step_words(key, lane.step, len(indices))
    generator = str(jax.random.key_impl(key))

    def step(lane: Lanes, xs: tuple[Array, Array]) -> tuple[Lanes, Metrics]:
        index, word = xs
        return take_step(lane, index, jax.random.wrap_key_data(word, impl=generator))

    return jax.lax.scan(step, lane, (indices, words), unroll=unroll)


def train_report(
    trial: Trial,
    work: Workload,
    lane: Lanes,
    train: Batch,
    keys: Keys,
    unroll: int = 1,
    draws: bool = True,
) -> tuple[Lanes, Metrics]:
    """Trains a lane for the steps of one report and gives the means of its metrics.

    Args:
      trial: as `Workload.trial` gives it.
      work: what it runs.
      lane: before the steps.
      train: the training split.
      keys: of the trial.
      unroll: steps per iteration of the compiled loop.
      draws: whether the trial's step uses its key.
    """
    examples = jax.tree.leaves(train)[0].shape[0]
    indices = batch_indices(keys.data, lane.step, work.report_every, work.batch_size, examples)
    lane, metrics = train_steps(
        trial, lane, train, indices, keys.trial, work.diverged_above, unroll, draws
    )
    return lane, {name: jnp.mean(m) for name, m in metrics.items()}


def evaluate_lane(trial: Trial, lane: Lanes, split: Batch, batch_size: int) -> Metrics:
    """The metrics of a lane on all of `split`, NaN where its trial diverged."""
    means = evaluate_split(trial, lane.state, split, batch_size)
    return {name: jnp.where(lane.diverged >= 0, jnp.nan, m) for name, m in means.items()}
