"""An executor that trains nothing: what a trial reports is a function of its numbers alone.

Everything above it is real: schedule, decisions, journal, snapshots, searches and rules.
"""

from __future__ import annotations

import math
import types
from typing import Any, NamedTuple, cast

import numpy as np

from jdl.engine.events import Prepared, Queued
from jdl.engine.executor import Taken
from jdl.engine.group import Group
from jdl.engine.plan import Plan
from jdl.engine.row import Collected

REPORTS, EVERY = 8, 5


def group(label: str, lanes: int, devices: int, lane_bytes: int = 10**6) -> Group:
    """As much of a group as home needs."""
    work: Any = types.SimpleNamespace(report_every=EVERY)
    return Group(label, work, cast(Any, None), Plan(lanes, devices, 1, lane_bytes, "pretended"))


def loss(history: tuple[float, ...]) -> float:
    """Of a trial that had these rates, one a report: a random-looking path that falls."""
    rate = history[-1]
    if rate > 2.0 and len(history) > 2:
        return math.nan
    mixed = math.sin(1000.0 * sum(r * (i + 1) for i, r in enumerate(history)))
    return abs(math.log(rate) + 2.0) + 2.0 / len(history) + 0.3 * mixed


class Lane(NamedTuple):
    """What a lane holds: the rate in every report so far, and the report that failed."""

    history: tuple[float, ...] = ()
    failed: int = -1


class PretendedExecutor:
    """Carries orders out by arithmetic; rows are lists of lanes."""

    def __init__(self, devices: int = 2):
        self.devices, self.doubles = devices, True
        self.compiled, self.found, self.narrowed = [], 0, 0
        self._widths: list[int] = []
        self._rows: dict[int, list[Lane]] = {}
        self._numbers: dict[int, list[float]] = {}
        self._flying: dict[int, Collected] = {}
        self._coming: set[int] = set()
        self._aside: dict[int, Any] = {}
        self.lane_reports = 0

    def join(self, group: Group, lanes: int, width: int) -> None:
        self._widths.append(width)

    def compile(self, row: int) -> None:
        self._coming.add(row)

    def prepare(self, row: int) -> Prepared:
        self._coming.discard(row)
        self.compiled.append(0.0)
        self._rows[row] = [Lane()] * self._widths[row]
        self._numbers[row] = [1.0] * self._widths[row]
        return Prepared(row, self._widths[row])

    def ready(self, least: int = 0) -> list[Prepared]:
        return [self.prepare(row) for row in sorted(self._coming)]

    def release(self, row: int) -> None:
        del self._rows[row], self._numbers[row]

    def narrow(self, order) -> None:
        if order.source is None:
            self.narrowed += 1
            return
        for held in (self._rows, self._numbers):
            held[order.row] = [held[order.row][lane] for lane in order.source]
        self._widths[order.row] = len(order.source)

    def _seat(self, row: int, lane: int, queued: Queued) -> None:
        self._numbers[row][lane] = float(queued.numbers["lr"])

    def start(self, order) -> None:
        if order.row not in self._rows:
            self.prepare(order.row)
        lanes = self._rows[order.row]
        if order.copied is not None:
            assert len(order.copied) == len(lanes)
            lanes[:] = [lanes[source] for source in order.copied]
        for lane, queued in (*order.fresh, *order.resumed, *order.changed):
            self._seat(order.row, lane, queued)
        for lane, _ in order.fresh:
            lanes[lane] = Lane()
        for lane, queued in order.resumed:
            lanes[lane] = self._aside.pop(queued.trial)
        values, failed = [], []
        for lane, done in zip(order.lanes, order.done):
            reported = []
            for report in range(done, done + order.reports):
                now = lanes[lane]
                assert now.failed >= 0 or len(now.history) == report
                if now.failed < 0:
                    now = now._replace(history=(*now.history, self._numbers[order.row][lane]))
                    if math.isnan(value := loss(now.history)):
                        now = Lane(now.history[:-1], report * EVERY + 2)
                reported.append(math.nan if now.failed >= 0 else value)
                lanes[lane] = now
            values.append(reported)
            failed.append(lanes[lane].failed)
            self.lane_reports += order.reports
        trial = dict(zip(order.lanes, order.trials))
        tests = {trial[lane]: self._test(lanes[lane]) for lane in order.finishing}
        shape = (len(order.lanes), order.reports, 1)
        self._flying[order.row] = Collected(
            order, np.array(values).reshape(shape), np.array(failed, int), tests
        )

    def _test(self, lane: Lane) -> dict[str, float]:
        return {"test_loss": math.nan if lane.failed >= 0 else 2 * loss(lane.history)}

    def collect(self, row: int) -> Collected:
        return self._flying.pop(row)

    def take(self, row: int, leaving) -> Taken:
        for lane, trial in leaving.pause:
            self._aside[trial] = self._rows[row][lane]
        for trial in leaving.drop:
            self._aside.pop(trial, None)
        tests = {trial: self._test(self._rows[row][lane]) for lane, trial in leaving.finish}
        states = {
            trial: {"history": np.array(self._rows[row][lane].history)}
            for lane, trial, _ in leaving.keep
        }
        return Taken(tests, states)

    def save(self, rows) -> dict[str, np.ndarray]:
        """Arrays that can be written: the history of each lane behind its length and failure."""
        arrays = {}
        for row in rows:
            arrays[f"row|{row}|lanes|x"] = np.array([_flat(lane) for lane in self._rows[row]])
            arrays[f"row|{row}|numbers|lr"] = np.array(self._numbers[row])
            if (flight := self._flying.get(row)) is not None:
                arrays[f"row|{row}|flight|0"] = flight.values
                arrays[f"row|{row}|flight|1"] = flight.failed
        for trial, lane in self._aside.items():
            arrays[f"aside|{trial}|x"] = _flat(lane)
        return arrays

    def load(self, arrays, flying) -> None:
        orders = {order.row: order for order in flying}
        for path, array in arrays.items():
            kind, number, rest = path.split("|", 2)
            if kind == "aside":
                self._aside[int(number)] = _lane(array)
            elif rest == "lanes|x":
                self._rows[int(number)] = [_lane(one) for one in array]
                self._numbers[int(number)] = arrays[f"row|{number}|numbers|lr"].tolist()
                self._coming.discard(int(number))
        for row, order in orders.items():
            trial = dict(zip(order.lanes, order.trials))
            self._flying[row] = Collected(
                order,
                arrays[f"row|{row}|flight|0"],
                arrays[f"row|{row}|flight|1"],
                {trial[lane]: self._test(self._rows[row][lane]) for lane in order.finishing},
            )

    def put_aside(self, lanes) -> None:
        self._aside |= {trial: _lane(leaves["x"]) for trial, leaves in lanes.items()}


def _flat(lane: Lane) -> np.ndarray:
    flat = np.zeros(REPORTS + 2)
    flat[:2] = len(lane.history), lane.failed
    flat[2 : 2 + len(lane.history)] = lane.history
    return flat


def _lane(flat: np.ndarray) -> Lane:
    return Lane(tuple(flat[2 : 2 + int(flat[0])].tolist()), int(flat[1]))
