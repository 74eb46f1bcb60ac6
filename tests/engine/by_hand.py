"""Trials, orders, segments and rules for tests whose values are worked out by hand."""

from __future__ import annotations

import numpy as np

from jdl.engine.events import Order, Queued, Segment
from jdl.engine.policy import Paused, Policy, Seat
from jdl.engine.rules import Evolution, Rule, Verdicts
from jdl.engine.schedule import Row, Schedule

INF, NAN = float("inf"), float("nan")


def queued(trial: int) -> Queued:
    """A trial of which number, rate and stream are told apart."""
    return Queued(trial, {"lr": np.float32(trial / 4)}, 100 + trial)


def seat(trial: int, done: int = 0, until: int = 6) -> Seat:
    return Seat(queued(trial), done, until)


def paused(trial: int, done: int, score: float = 0.5, group: str = "a") -> Paused:
    return Paused(group, queued(trial), done, score)


def order(reports: int, seats: dict[int, tuple[int, int]], row: int = 0, **more) -> Order:
    """An order for the lanes of `seats`, each with a trial and its reports before."""
    trials, done = zip(*seats.values())
    return Order(row, reports, tuple(seats), trials, done, **more)


def segment(of: Order, *scores: list[float], failed=(), seconds: float = 0.0) -> Segment:
    return Segment(of, list(scores), list(failed) or [-1] * len(of.lanes), seconds)


def row(*trials: Seat | None, group: str = "a", devices: int = 1, **more) -> Row:
    there = {"report_seconds": 0.25, "ready": True, **more}
    return Row(group, devices, seats=tuple(trials), **there)


def schedule(*rows: Row, queues=None, returning=None, **more) -> Schedule:
    """Rows whose turn it is one after another, in a run whose search has no further trials."""
    nothing: dict[str, tuple] = {one.group: () for one in rows}
    numbers = tuple(range(len(rows)))
    there = {"rotation": numbers, "to_scan": len(rows), "exhausted": True, **more}
    return Schedule(rows, nothing | (queues or {}), nothing | (returning or {}), **there)


class Script:
    """A rule that says what it was given to say, and remembers what it was asked."""

    def __init__(self, rungs, *verdicts: Verdicts, settles: Verdicts | None = None):
        self.asked: list[tuple[int, list[int], list[list[float]]]] = []
        said = iter(verdicts)

        def decide(rung, trials, curves):
            self.asked.append((rung, list(trials), [list(curve) for curve in curves]))
            return next(said)

        self.rule = Rule(lambda trial, reports: rungs, decide, lambda: settles or Verdicts())


class Exchanges:
    """A population that gives the exchanges that it was given, and remembers what it was asked."""

    def __init__(self, every: int, *exchanges):
        self.asked: list[tuple] = []

        def evolve(report, trials, scores, numbers):
            self.asked.append((report, list(trials), list(scores), [dict(n) for n in numbers]))
            return exchanges

        self.population = Evolution(every, evolve, "exchanges")


def policy(**more) -> Policy:
    """Six reports of ten steps."""
    return Policy(6, 10, **more)
