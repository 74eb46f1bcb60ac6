"""All checks of a trial on a data set, each on what it needs, in one report."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jdl._checks import check_number
from jdl.data.dataset import Dataset
from jdl.diagnose.activation import activation_statistics, dead_units
from jdl.diagnose.carried import carried_state
from jdl.diagnose.curve import read_curve
from jdl.diagnose.data_report import data_report
from jdl.diagnose.finding import Finding, Found, by_severity, worst
from jdl.diagnose.gradient import gradient_statistics, update_ratio
from jdl.diagnose.gradient_check import gradient_check
from jdl.diagnose.initial import regularization_raises_loss, symmetry
from jdl.diagnose.initial_loss import loss_at_init
from jdl.diagnose.keys import key_reuse
from jdl.diagnose.mode import evaluation_mode
from jdl.diagnose.overfit import judge_overfit
from jdl.diagnose.rate import (
    MakeTrial,
    Runs,
    judge_rates,
    make_runner,
    rates_around,
)
from jdl.diagnose.subject import first, length, rescaled
from jdl.engine.devices import check_compiles
from jdl.engine.keys import to_keys, to_words
from jdl.engine.trial import Batch, Trial
from jdl.nn.summary import flops

MOST = 8192  # training examples that the checks of the trial see; those of the data see all
FEW = 16  # examples to learn by heart
PROBE = 256  # examples whose activations are looked at
CHUNKS = 10  # of a short run, evaluated after each

# Rates, seeds and steps of the short runs, the first whose work is below the budget.
_SIZES = ((13, 2, 200), (13, 1, 200), (9, 1, 100), (9, 1, 50))
_BUDGET = 1.5e11  # floating-point operations: 5 to 10 s on two cores


class Report(NamedTuple):
    """What all checks found.

    Attributes:
      findings: one for each check, in the order in which they ran.
      rate: that was judged.
      unit: said after a rate: "" or " times yours".
      runs: the short runs at many rates.
      few: the same on a few examples.
      seconds: what each check took, compiling included.
    """

    findings: tuple[Finding, ...]
    rate: float
    unit: str
    runs: Runs
    few: Runs
    seconds: dict[str, float]

    @property
    def problems(self) -> list[Found]:
        """All problems, the worst first, causes before what they cause."""
        return by_severity(self.findings)

    @property
    def verdict(self) -> str:
        """The worst verdict."""
        return worst(self.findings)

    def __getitem__(self, check: Any) -> Any:
        """The finding of the check of that name (or, as any tuple's, a field by its number)."""
        if not isinstance(check, str):
            return tuple(self)[check]
        for finding in self.findings:
            if finding.check == check:
                return finding
        raise KeyError(f"{check}; there are {', '.join(f.check for f in self.findings)}")


def examine(
    trial: Trial | MakeTrial,
    data: Dataset | tuple[Any, ...],
    *,
    rate: float | None = None,
    penalty: tuple[Trial, Trial] | None = None,
    batch_size: int = 32,
    seed: int = 0,
    say: Callable[[str], None] = lambda check: None,
) -> Report:
    """Runs every check that the trial allows; nothing of it changes the trial.

    The checks of layers, gradients and modes run at the best rate that the
    range test finds, so that a bad rate is said once; the update ratio, the curve and the dead
    units are those of the trial's own rate.

    Args:
      trial: a trial, or a function from the learning rate to one, which gives
        absolute rates; a trial is tried at multiples of its own.
      data: a `Dataset`, or `(train, valid, test)` with each `(x, y)` or None.
      rate: to judge, where `trial` is a function of it.
      penalty: the trial without and with a penalty; None leaves that check out.
      batch_size: examples in a step.
      seed: the root of all random numbers.
      say: called with the name of each check before it runs.

    Raises:
      ValueError: `trial` is a function and `rate` is None.
    """
    check_compiles()
    dataset = Dataset(*data)
    if isinstance(trial, Trial):
        unit, rate = " times yours", 1.0
        make: MakeTrial = rescaled(trial)
    elif rate is None:
        raise ValueError("Give the learning `rate` to judge: the trial is a function of it.")
    else:
        unit, make = "", trial
    check_number("rate", rate, "(0, inf)")
    seeds_of = itertools.count(1000 * seed)

    def key() -> Any:
        return jax.random.key(next(seeds_of))

    findings: list[Finding] = []
    seconds: dict[str, float] = {}

    def run(check: str, function: Callable[[], Finding]) -> Finding:
        say(check)
        start = time.perf_counter()
        findings.append(function())
        seconds[check] = time.perf_counter() - start
        return findings[-1]

    run("data_report", lambda: data_report(dataset))
    shown, held = _some(dataset.train, MOST), _some(dataset.valid or dataset.train, MOST // 4)
    batch_size = min(batch_size, length(shown))
    batch, probe = first(shown, batch_size), first(shown, PROBE)
    own = make(rate)
    run("key_reuse", lambda: key_reuse(own, batch, key=key()))
    run("gradient_check", lambda: gradient_check(own, batch, key=key()))
    run("carried_state", lambda: carried_state(own, batch, key=key()))
    chance = run("loss_at_init", lambda: loss_at_init(own, probe, key=key())).figures.get(
        "expected"
    )
    run("activation_statistics", lambda: activation_statistics(own, probe, key=key()))
    count, seeds, steps = _size(own, batch)
    rates = rates_around(rate, count=count)
    runner = make_runner(
        make,
        rates,
        key=key(),
        seeds=seeds,
        batch_size=batch_size,
        chunk=steps // CHUNKS,
        chunks=CHUNKS,
    )
    runs: list[Runs] = []

    def try_rates() -> Finding:
        runs.append(runner.run(shown, held))
        return judge_rates(runs[0], rate, unit, chance)

    def try_few() -> Finding:
        runs.append(runner.run(shown, held, FEW))
        return judge_overfit(runs[1], first(shown, FEW), chance or 0.0)

    ranged = run("learning_rate_range", try_rates)
    run("overfit_small_batch", try_few)
    best = float(ranged.figures.get("best", rate))
    good = make(best)
    run("symmetry", lambda: symmetry(good, batch, key=key()))
    run("gradient_statistics", lambda: gradient_statistics(good, batch, key=key()))
    run("update_ratio", lambda: update_ratio(own, batch, key=key()))
    tried = [best / 10, best / 3, best]
    run("evaluation_mode", lambda: evaluation_mode(make, batch, key=key(), rates=tried))
    if penalty is not None:
        plain, penalised = penalty
        run(
            "regularization_raises_loss",
            lambda: regularization_raises_loss(plain, penalised, batch, key=key()),
        )
    at = count // 2
    state = jax.tree.map(lambda a: np.asarray(a)[at, 0], to_words(runs[0].state))
    run("dead_units", lambda: dead_units(own, to_keys(state), shown))
    # Single batches vary by more than a run learns; their means over a chunk do not.
    curves = {"train_loss": runs[0].losses[at].mean(0).reshape(CHUNKS, -1).mean(1)}
    if dataset.valid is not None:
        curves["valid_loss"] = runs[0].held["loss"][at].mean(0)
    run("read_curve", lambda: read_curve(curves, chance=chance, short=True))
    return Report(tuple(findings), rate, unit, runs[0], runs[1], seconds)


def _some(split: Batch, most: int) -> Batch:
    """At most `most` examples of a split, drawn at random.

    On the host, where a slice is no program to compile.
    """
    count = length(split)
    picked = np.random.default_rng(0).permutation(count)[: min(most, count)]
    return jax.tree.map(lambda a: np.asarray(a)[picked], split)


def _size(trial: Trial, batch: Batch) -> tuple[int, int, int]:
    """Rates, seeds and steps of the short runs, so that their work stays within the budget."""
    key = jax.random.key(0)
    state = jax.eval_shape(trial.init, key, batch)
    work = flops(trial.step, state, batch, key)
    for size in _SIZES:
        if 2 * math.prod(size) * work <= _BUDGET:
            return size
    return _SIZES[-1]
