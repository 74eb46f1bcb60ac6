"""A run that is cut at any turn and goes on is the run that never was, decision by decision."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import tempfile

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.engine.pretended import EVERY, REPORTS, PretendedExecutor, group

from jdl import sweep
from jdl.engine.checkpoint import from_bytes
from jdl.engine.events import Queued
from jdl.engine.goal import Goal
from jdl.engine.journal import Journal
from jdl.engine.policy import Policy
from jdl.engine.progress import Progress
from jdl.engine.run import Limits, run_trials
from jdl.engine.supply import Given, Supply

GOAL = Goal("valid_loss", -1)
SPACE = sweep.parse_space({"lr": sweep.log_uniform(1e-3, 4.0)})
RULES = {
    "none": None,
    "asha": sweep.asha(reduction=2),
    "hyperband": sweep.hyperband(reduction=2),
    "cohorts": sweep.successive_halving(reduction=2, cohort=5),
    "halving": sweep.successive_halving(reduction=2),
    "median": sweep.median_stopping(trials=2),
    "patience": sweep.patience(2),
    "both": sweep.combine(sweep.asha(reduction=2), sweep.patience(2)),
}
GROUPS = ["a", "b", "c"]


def search(kind: str, trials: int, seed: int):
    """Configurations with a group each: drawn ahead, or near the best that was told."""
    random = np.random.default_rng(seed)
    told: list[tuple[float, float]] = []
    asked = 0

    def ask(count):
        nonlocal asked
        given = []
        for _ in range(min(count, trials - asked)):
            best = max(told, default=(0.0, 0.1))[1] if kind == "adaptive" else 0.1
            rate = best * float(np.exp(1.5 * random.normal()))
            given.append((asked, {"lr": rate, "group": GROUPS[int(random.integers(3))]}))
            asked += 1
        if kind == "adaptive" and len(given) > 1 and random.random() < 0.3:
            asked -= 1  # a search may give fewer than it is asked for
            given.pop()
        return given

    def tell(scores):
        told.extend((score, rates[trial]) for trial, score in scores if score == score)

    rates: dict[int, float] = {}
    known: dict[str, object] = {}
    lanes = {"a": (2, 2), "b": (1, 2), "c": (3, 1)}

    def give(count):
        configs = ask(count)
        rates.update({trial: config["lr"] for trial, config in configs})
        labels = dict.fromkeys(config["group"] for _, config in configs)
        new = [group(label, *lanes[label]) for label in labels if label not in known]
        known.update({g.label: g for g in new})
        queued = [
            (config["group"], Queued(trial, {"lr": np.float32(config["lr"])}, trial))
            for trial, config in configs
        ]
        return Given(queued, configs, new)

    first = give(1 if kind == "adaptive" else 4)
    while not first.trials:
        first = give(1)
    return Supply(kind, first, give, tell, lambda: trials - asked, kind == "adaptive")


class Case:
    """One way to run: everything that a run is made of, made anew at each start."""

    def __init__(self, rule, kind, trials, seed, target):
        self.rule, self.kind, self.trials = rule, kind, trials
        self.seed, self.target = seed, target

    def start(self, folder, cuts=(), checkpoint_seconds=0.0, journal=None):
        """Runs until the end, or until as many turns as `cuts` says were collected."""
        policy = Policy(
            REPORTS,
            EVERY,
            RULES[self.rule].start() if RULES.get(self.rule) else None,
            self._population(),
            self.target,
            self.kind == "adaptive",
        )
        supply = search("drawn" if self.kind == "population" else self.kind, self.trials, self.seed)
        journal = Journal(folder)
        executor = PretendedExecutor()
        for turns in cuts:
            _cut_after(executor, turns)
        try:
            journal.begin({"trials": self.trials}, ["valid_loss"], supply.first.configs)
            stats = run_trials(
                policy, executor, journal, supply, GOAL, Progress(False),
                trials=self.trials,
                limits=Limits(keep=3, checkpoint_seconds=checkpoint_seconds),
            )  # fmt: skip
            return stats, executor
        finally:
            journal.close()

    def _population(self):
        if self.rule != "pbt":
            return None
        return sweep.pbt(every=2, quantile=0.4).start(SPACE, self.seed)


class Killed(BaseException):
    pass


def _cut_after(executor, turns):
    collect, count = executor.collect, itertools.count(1)

    def cut(row):
        if next(count) > turns:
            raise Killed
        return collect(row)

    executor.collect = cut


def contents(folder, clock):
    """Every row of the file; without a fixed order, those that no clock has a part in."""
    with sqlite3.connect(f"file:{folder}/run.sqlite?mode=ro", uri=True) as db:
        turn = "turn" if not clock else "0"
        seat = "started, lane, ended, asked" if not clock else "0"
        return {
            "reports": db.execute(
                f"SELECT trial, step, {turn}, valid_loss FROM reports ORDER BY trial, step"
            ).fetchall(),
            "trials": db.execute(
                f"SELECT trial, config, status, steps, final, {seat} FROM trials ORDER BY trial"
            ).fetchall(),
            "states": [
                (trial, score, from_bytes(state)[0]["history"].tolist())
                for trial, score, state in db.execute(
                    "SELECT trial, score, state FROM states ORDER BY trial"
                )
            ],
            "lineage": db.execute("SELECT * FROM lineage ORDER BY trial, report").fetchall(),
            "events": [] if clock else sorted(db.execute("SELECT * FROM events").fetchall()),
        }


cases = st.builds(
    Case,
    rule=st.sampled_from(sorted({*RULES} - {"none"})),
    kind=st.sampled_from(["drawn", "adaptive"]),
    trials=st.integers(1, 24),
    seed=st.integers(0, 1000),
    target=st.sampled_from([None, None, None, -0.3]),
)
others = st.builds(
    Case,
    rule=st.sampled_from(["none", "pbt"]),
    kind=st.just("drawn"),
    trials=st.integers(1, 4),
    seed=st.integers(0, 1000),
    target=st.just(None),
)


# Syncing to a disk, which a killed process does not need, would be most of the time.
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


@settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(case=st.one_of(cases, cases, others), data=st.data())
def test_a_run_cut_at_any_turns_is_the_run_that_was_not(case, data):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        stats, _ = case.start(f"{folder}/whole")
        assert stats.complete
        clock = case.rule == "none" and case.kind == "drawn"
        whole = contents(f"{folder}/whole", clock)
        for _ in range(data.draw(st.integers(1, 4), label="cuts")):
            turns = data.draw(st.integers(0, 12), label="turns")
            every = data.draw(st.sampled_from([0.0, 1e9]), label="seconds between snapshots")
            with contextlib.suppress(Killed):
                case.start(f"{folder}/parts", [turns], every)
        case.start(f"{folder}/parts")
        parts = contents(f"{folder}/parts", clock)
        for table in whole:
            assert parts[table] == whole[table], table
