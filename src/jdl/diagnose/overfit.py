"""Whether a network can learn a few examples by heart, at any of many rates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jdl.diagnose.finding import Finding, Problem
from jdl.diagnose.rate import MakeTrial, Runs, make_runner, rates_around
from jdl.diagnose.subject import classes_in, first, length
from jdl.engine.trial import Batch

ENOUGH = 200  # steps after which half of the loss is no longer a good start


def overfit_small_batch(
    make_trial: MakeTrial,
    data: Batch,
    *,
    key: Any,
    examples: int = 16,
    rates: Any = None,
    steps: int = 300,
    seeds: int = 1,
    chance: float | None = None,
) -> Finding:
    """Whether a few examples can be learnt by heart: loss to 0, accuracy to 1.

    A network that cannot do that, at any of many rates, has a fault: wrong
    labels for its outputs, a gradient that is wrong or cut off, an output that
    cannot take the values asked for. Switch regularisation off for it.

    Args:
      make_trial: the trial of a rate, which is traced, or `rescaled(trial)`.
      data: training examples; the first are used.
      key: of initialisation and steps.
      examples: how many.
      rates: to try; None is 13 factors from 1e-4 to 1e4 (of `rescaled`).
      steps: of each run.
      seeds: networks at each rate.
      chance: the loss of knowing nothing; None is the log of the number of classes for
        integer labels, 0 where it is unknown or the loss is no cross-entropy.

    Kinds: "cannot": at the best rate more than 20 % of the first loss, or of
    `chance` where that is more, remains (wrong), or 5 % (suspicious), and no
    longer falls. In fewer than 200 steps half of it may remain, and where the
    accuracy is 1: smoothed labels leave a fifth or more.
    "softmax_twice": all right but the loss stays at `log(1 + (classes - 1) / e)`,
    the least that is left when probabilities are taken for logits (wrong).

    Source: CS231n, "Sanity checks: overfit a tiny subset of data".
    """
    few = min(examples, length(data))
    runner = make_runner(
        make_trial,
        rates_around() if rates is None else rates,
        key=key,
        seeds=seeds,
        batch_size=few,
        chunk=steps,
        chunks=1,
        probe=few,
    )
    return judge_overfit(runner.run(data, data, few), first(data, few), chance)


def judge_overfit(runs: Runs, batch: Batch, chance: float | None = None) -> Finding:
    """The finding of `overfit_small_batch` on runs whose every batch was `batch`."""
    classes = classes_in(batch) or 1
    chance = math.log(classes) if chance is None else chance
    curve = runs.shown["loss"]
    # Of rates that end at 0 the one that stays there.
    tail = np.median(runs.losses[..., -max(1, runs.losses.shape[-1] // 10) :], axis=-1)
    ends = np.where(np.isfinite(tail), curve[..., -1] + 1e-3 * tail, np.inf)
    at = np.unravel_index(int(np.argmin(ends)), ends.shape)
    start, end = float(curve[at][0]), float(curve[at][-1])
    rate, steps, few = float(runs.rates[at[0]]), runs.losses.shape[-1], length(batch)
    figures: dict[str, Any] = {"first_loss": start, "loss": end, "rate": rate, "examples": few}
    said = f"The loss of {few} examples goes from {start:.3g} to {end:.2g} in {steps} steps"
    right = None
    if "accuracy" in runs.shown:
        right = float(runs.shown["accuracy"][at][-1])
        figures["accuracy"] = right
        said += f", accuracy {right:.0%}"
    said += f", at the best of {len(runs.rates)} rates"
    problems = []
    floor = math.log1p((classes - 1) / math.e) if chance else 0.0
    top = max(start, chance)
    on_its_way = _still_falls(runs.losses[at]) or (steps < ENOUGH and end <= 0.5 * top)
    if on_its_way and end > 0.05 * top:
        said += ", and is on its way"
    if floor and 0.98 * floor <= end <= 1.15 * floor and right in (None, 1.0):
        advice = (
            f"{said}; {floor:.3g} is what is left of {classes} classes when a softmax is applied "
            "twice: give the loss logits, not probabilities."
        )
        problems.append(Problem("softmax_twice", "wrong", advice))
    elif not (end <= 0.05 * top or (right == 1 and end <= 0.5 * top) or on_its_way):
        verdict = "wrong" if not end <= 0.2 * top else "suspicious"
        advice = (
            f"{said}: it cannot learn {few} examples by heart. Switch regularisation off, then "
            "look at what the loss is given, and at the gradient."
        )
        problems.append(Problem("cannot", verdict, advice))
    return Finding("overfit_small_batch", figures, f"{said}.", tuple(problems))


def _still_falls(losses: np.ndarray) -> bool:
    """Whether a loss loses a tenth of itself in the second half of its steps."""
    tenth = max(1, len(losses) // 10)
    middle = losses[4 * tenth : 6 * tenth] if len(losses) >= 6 * tenth else losses[:tenth]
    return bool(np.median(losses[-tenth:]) < 0.9 * np.median(middle))
