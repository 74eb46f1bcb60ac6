"""Is evaluation what it should be: without noise, each example by itself, and the same network?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl.diagnose.finding import Finding, Problem
from jdl.diagnose.subject import compiled, first, length, loss_in
from jdl.engine.trial import Batch, State, Trial


def measure_mode(trial: Trial, state: State, batch: Batch) -> dict[str, Any]:
    """The evaluated loss of a batch, of the same in another order, and of its halves. Pure."""
    half = length(batch) // 2
    batch = first(batch, 2 * half)
    parts = [jax.tree.map(lambda a: a[:half], batch), jax.tree.map(lambda a: a[half:], batch)]
    # Rolled by an odd number: of examples that repeat, none may meet its own mask again.
    moved = jax.tree.map(lambda a: jnp.roll(a, half - 1 + half % 2, axis=0), batch)
    losses = {"whole": batch, "moved": moved, "one": parts[0], "other": parts[1]}
    return {name: loss_in(trial.evaluate(state, part)) for name, part in losses.items()}


def evaluation_mode(
    make_trial: Any, batch: Batch, *, key: Any, steps: int = 60, rates: Any = (0.01, 0.1, 1.0)
) -> Finding:
    """Whether evaluation is of the network that was trained, without noise, example by example.

    A loss evaluated on a batch must be the mean of its halves' and may not
    depend on the order of the examples; and on examples that were just learnt
    it must be about the training loss.

    Args:
      make_trial: the trial of a rate, or `rescaled(trial)`: a few steps are
        taken at each of `rates`, all on `batch`, and the best is looked at.
      batch: a training batch.
      key: of initialisation and steps.
      steps: taken before looking.
      rates: to take them at.

    Kinds, all wrong: "noise": the loss depends on the order, as with dropout
    left on. "batch_statistics": it depends on the examples' company, as with
    batch norm in its training mode. "summed": it grows with the batch. "disagrees": the
    training loss fell below half of what the same examples are evaluated at, which is as at
    the start or worse: the running statistics do not follow, or evaluation
    leaves something out.
    """
    few = min(length(batch), 64)
    batch = first(batch, few)

    @compiled
    def look(key: Any, batch: Batch) -> Any:
        init, run = jax.random.split(key)

        def one(rate: Any) -> Any:
            trial = make_trial(rate)
            start = trial.init(init, batch)

            def step(state: State, index: Any) -> Any:
                state, metrics = trial.step(state, batch, jax.random.fold_in(run, index))
                return state, loss_in(metrics)

            after, losses = jax.lax.scan(step, start, jnp.arange(steps))
            return {
                "before": loss_in(trial.evaluate(start, batch)),
                "trained": jnp.median(losses[-max(1, steps // 6) :]),
                "evaluated": loss_in(trial.evaluate(after, batch)),
            } | measure_mode(trial, after, batch)

        return jax.vmap(one)(jnp.asarray(rates, jnp.float32))

    return judge_mode(look(key, batch))


def judge_mode(measured: dict[str, Any]) -> Finding:
    """The finding of `evaluation_mode` on figures with a leading axis of rates."""
    table = {name: np.asarray(value, np.float64) for name, value in measured.items()}
    trained = np.where(np.isfinite(table["trained"]), table["trained"], np.inf)
    at = int(np.argmin(trained))
    m = {name: float(value[at]) for name, value in table.items()}
    halves = (m["one"] + m["other"]) / 2
    size = max(abs(m["whole"]), 1e-3 * abs(m["before"]), 1e-12)
    figures: dict[str, Any] = m | {"halves": halves}
    problems = []
    # Rounding of float32 sums in another order is 1e-6; of bfloat16 layers 1e-2 of a unit.
    if abs(m["moved"] - m["whole"]) > 1e-3 * size:
        advice = (
            f"The evaluated loss is {m['whole']:.4g} and {m['moved']:.4g} with the same examples "
            "in another order: there is noise in evaluation. Is dropout left on?"
        )
        problems.append(Problem("noise", "wrong", advice))
    elif abs(halves - m["whole"]) > 1e-3 * size:
        if abs(m["one"] + m["other"] - m["whole"]) < 1e-3 * size:
            advice = (
                f"The loss of a batch is {m['whole']:.4g} and the sum of its halves' is the same: "
                "it is summed, not averaged."
            )
            problems.append(Problem("summed", "wrong", advice))
        else:
            advice = (
                f"The evaluated loss of a batch is {m['whole']:.4g} and of its halves "
                f"{halves:.4g} on average: examples are judged by the company they are in. Is "
                "batch norm in its training mode?"
            )
            problems.append(Problem("batch_statistics", "wrong", advice))
    learnt = m["trained"] < 0.5 * m["before"]
    if learnt and m["evaluated"] > 0.75 * m["before"] and not problems:
        advice = (
            f"Training brings the loss of a batch from {m['before']:.3g} to {m['trained']:.3g}, "
            f"but the same batch is evaluated at {m['evaluated']:.3g}: evaluation runs another "
            "network. Do the running statistics follow, and is all of the state kept?"
        )
        problems.append(Problem("disagrees", "wrong", advice))
    note = (
        f"A batch trained to a loss of {m['trained']:.3g} is evaluated at {m['evaluated']:.3g}, "
        "whatever the order and the company of its examples."
    )
    return Finding("evaluation_mode", figures, note, tuple(problems))
