"""Short runs at many rates at once: which rates train."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdl._checks import check_number
from jdl.diagnose.finding import Finding, Problem
from jdl.diagnose.subject import first, length, loss_in
from jdl.engine.lane import Lanes, start_lane, train_steps
from jdl.engine.trial import Batch, State, Trial

MakeTrial = Callable[[Any], Trial]

SLOW = 30.0  # below the best rate of a short run by no more, a rate may only need longer


class Runs(NamedTuple):
    """Short runs, one for each rate and seed; every array begins with (rates, seeds).

    Attributes:
      rates: what was tried.
      losses: the training loss of every step, NaN from where it was not finite.
      shown: what the trial evaluates on the examples shown, before and after
        each chunk of steps, by name: (rates, seeds, chunks + 1).
      held: the same on held-out examples.
      state: the trial's state after the last step that was finite.
    """

    rates: np.ndarray
    losses: np.ndarray
    shown: dict[str, np.ndarray]
    held: dict[str, np.ndarray]
    state: State


class Runner(NamedTuple):
    """A compiled chunk of steps for many rates and seeds side by side.

    Attributes:
      run: `run(examples, held, few) -> Runs`; where `few` is not None, every
        batch is made of the first `few` examples.
      rates: what it tries.
    """

    run: Callable[..., Runs]
    rates: np.ndarray


def make_runner(
    make_trial: MakeTrial,
    rates: Sequence[float] | np.ndarray,
    *,
    key: Any,
    seeds: int,
    batch_size: int,
    chunk: int,
    chunks: int,
    probe: int = 256,
) -> Runner:
    """Compiles nothing yet; `run` compiles one program, and the same one for all its calls.

    Args:
      make_trial: the trial of a rate, which is traced.
      rates: to try.
      key: of initialisation, batches and steps.
      seeds: networks at each rate; the same initial weights and batches at all.
      batch_size: examples in a step.
      chunk: steps between evaluations.
      chunks: how many of them.
      probe: examples that are evaluated, of those shown and of those held out.
    """
    grid = np.asarray(rates, np.float32)
    check_number("rates", grid, "(0, inf)")
    # As words: each call draws the same numbers, and on purpose.
    words, generator = jax.random.key_data(key), str(jax.random.key_impl(key))

    def look(trial: Trial, state: State, shown: Batch, held: Batch) -> Any:
        return trial.evaluate(state, first(shown, probe)), trial.evaluate(state, first(held, probe))

    @jax.jit
    def whole(rates: Any, indices: Any, examples: Batch, held: Batch) -> Any:
        root = jax.random.wrap_key_data(words, impl=generator)
        init_keys, run_keys = jax.random.split(root, (2, seeds))
        shown = jax.tree.map(lambda a: a[indices.reshape(-1)[:probe]], examples)

        def lane(rate: Any, init: Any, run: Any) -> Any:
            trial = make_trial(rate)

            def one(lane: Lanes, rows: Any) -> Any:
                lane, metrics = train_steps(trial, lane, examples, rows, run, math.inf)
                return lane, (loss_in(metrics), look(trial, lane.state, shown, held))

            start = start_lane(trial, first(examples, batch_size), init)
            before = look(trial, start.state, shown, held)
            end, (losses, after) = jax.lax.scan(one, start, indices)
            curves = jax.tree.map(
                lambda a, b: jnp.concatenate([a[None], b]).astype(jnp.float32), before, after
            )
            return losses.reshape(-1), curves, end.state

        over_seeds = jax.vmap(lane, (None, 0, 0))
        return jax.vmap(over_seeds, (0, None, None))(rates, init_keys, run_keys)

    def run(examples: Batch, held: Batch, few: int | None = None) -> Runs:
        size = (chunks * chunk, batch_size)
        if few is None:
            random = np.random.default_rng(np.asarray(words).ravel().tolist())
            draws = random.integers(0, length(examples), size, dtype=np.int32)
        else:
            draws = np.arange(size[0] * size[1], dtype=np.int32).reshape(size) % few
        indices = draws.reshape(chunks, chunk, batch_size)
        losses, (shown, after), state = whole(grid, indices, examples, held)
        losses, shown, after = jax.tree.map(
            lambda a: np.asarray(a, np.float64), (losses, shown, after)
        )
        return Runs(grid.astype(np.float64), losses, shown, after, state)

    return Runner(run, grid)


def rates_around(rate: float = 1.0, below: float = 1e4, above: float = 1e4, count: int = 13) -> Any:
    """`count` rates from `rate / below` to `rate * above`, evenly in their logarithm.

    >>> rates_around(0.1, 100, 100, 5).round(6).tolist()
    [0.001, 0.01, 0.1, 1.0, 10.0]
    """
    return rate * np.geomspace(1 / below, above, count)


def learning_rate_range(
    make_trial: MakeTrial,
    data: Batch,
    *,
    key: Any,
    rate: float,
    rates: Any = None,
    batch_size: int = 32,
    steps: int = 100,
    seeds: int = 2,
) -> Finding:
    """Which rates lower the loss in a short run, and where `rate` lies among them.

    All rates and seeds train side by side, in one program, on the same batches
    from the same initial weights (not one run whose rate rises, where what is
    seen at a rate depends on all before it).

    Args:
      make_trial: the trial of a rate, which is traced; of a trial whose rate
        cannot be set, `rescaled(trial)`, whose rate is then 1.
      data: training examples, in memory.
      key: of initialisation, batches and steps.
      rate: that is meant to be used.
      rates: to try; None is 13 from `rate / 1e4` to `rate * 1e4`.
      batch_size: examples in a step.
      steps: of each run.
      seeds: networks at each rate.

    A rate's score is its training loss over the last quarter of the steps, the
    worst of the seeds; the suggested interval is that of the rates around the
    best which make at least 80 % of the best's progress.

    Kinds: "too_high": training at `rate` ends above the first loss or is not
    finite (wrong), or makes less than half the progress although lower rates make
    more (suspicious). "too_low": less than a tenth of the best's progress
    (wrong) or less than a third (suspicious), while rates more than 30 times higher make more.
    "no_rate_trains": none lowers the loss by 2 % (suspicious: the cause is elsewhere).

    A short run prefers rates that are high for a long one (Wu, Ren, Liao,
    Grosse 2018, Understanding short-horizon bias), so a low rate has the
    benefit of the doubt.

    Sources: Smith (2017), Cyclical learning rates, section 3.3; CS231n: loss
    that barely changes is a rate too low, NaN a rate too high.
    """
    check_number("rate", rate, "(0, inf)")
    grid = rates_around(rate) if rates is None else np.asarray(rates, float)
    grid = np.unique(np.append(grid, rate))
    runner = make_runner(
        make_trial,
        grid,
        key=key,
        seeds=seeds,
        batch_size=min(batch_size, length(data)),
        chunk=steps,
        chunks=1,
    )
    return judge_rates(runner.run(data, data), rate)


def judge_rates(runs: Runs, rate: float, unit: str = "", chance: float | None = None) -> Finding:
    """The finding of `learning_rate_range` on runs at many rates.

    Args:
      runs: of `make_runner`, on batches drawn from the training split.
      rate: the one to judge; the nearest that was tried is.
      unit: said after a rate, as " times yours".
      chance: the loss of knowing nothing. Of a network that starts below it, having
        trained before, progress counts from there. None where it is unknown.
    """
    losses = runs.losses
    start = float(np.nanmean(losses[..., 0])) if np.isfinite(losses[..., 0]).any() else np.nan
    tail = losses[..., -max(1, losses.shape[-1] // 4) :].mean(-1)
    scores = np.where(np.isfinite(tail), tail, np.inf).max(1)
    figures: dict[str, Any] = {"rates": runs.rates, "scores": scores, "first_loss": start}
    best = int(np.argmin(scores))
    top = max(start, chance or 0.0)
    progress = (top - scores) / max(top - scores[best], 1e-30)
    at = int(np.argmin(np.abs(np.log(runs.rates / rate))))
    if not (np.isfinite(scores[best]) and top - scores[best] > 0.02 * abs(top)):
        advice = (
            f"No rate from {runs.rates[0]:.1g} to {runs.rates[-1]:.1g}{unit} lowers the loss of "
            f"{start:.3g} in {losses.shape[-1]} steps by 2 %: the cause is not the rate. Look at "
            "the data, the labels and the gradient first."
        )
        problem = Problem("no_rate_trains", "suspicious", advice)
        return Finding("learning_rate_range", figures, "", (problem,))
    low, high = best, best
    while low > 0 and progress[low - 1] >= 0.8:
        low -= 1
    while high < len(progress) - 1 and progress[high + 1] >= 0.8:
        high += 1
    figures |= {"best": runs.rates[best], "low": runs.rates[low], "high": runs.rates[high]}
    span = f"{runs.rates[low]:.2g} to {runs.rates[high]:.2g}{unit}"
    reason = (
        f"in {losses.shape[-1]} steps {runs.rates[best]:.2g}{unit} brings the loss from "
        f"{start:.3g} to {scores[best]:.3g} and these make 80 % of that progress"
    )
    note = f"Rates from {span} train: {reason}. Long runs prefer the lower end."
    problems = []
    if at > best and not progress[at] >= 0.5:
        verdict = "suspicious" if progress[at] > 0 else "wrong"
        ended = f"ends at {scores[at]:.3g}" if np.isfinite(scores[at]) else "is not finite"
        advice = (
            f"The rate {rate:.2g}{unit} is too high: the loss {ended}. Rates from {span} train: "
            f"{reason}."
        )
        problems.append(Problem("too_high", verdict, advice))
    elif runs.rates[at] < runs.rates[best] / SLOW and progress[at] < 1 / 3:
        verdict = "suspicious" if progress[at] >= 0.1 else "wrong"
        advice = (
            f"The rate {rate:.2g}{unit} is too low: it makes {max(progress[at], 0):.0%} of the "
            f"best's progress. Rates from {span} train: {reason}."
        )
        problems.append(Problem("too_low", verdict, advice))
    return Finding("learning_rate_range", figures, note, tuple(problems))
