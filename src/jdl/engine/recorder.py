"""The home of a run, which asks its search, writes its journal and shows its progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from jdl.engine import checkpoint
from jdl.engine.decisions import told
from jdl.engine.events import DONE, ENDED, Asked, Joined, Leaving, Record, Segment
from jdl.engine.executor import Taken
from jdl.engine.goal import Goal
from jdl.engine.group import Group
from jdl.engine.journal import Journal
from jdl.engine.policy import Policy
from jdl.engine.progress import Progress, Status
from jdl.engine.row import Collected
from jdl.engine.schedule import Schedule
from jdl.engine.supply import Supply

SHOW_SECONDS = 0.05  # between updates of the progress line


class Recorder:
    """Takes the results of segments, and writes them while the next segments run."""

    def __init__(
        self,
        journal: Journal,
        supply: Supply,
        goal: Goal,
        policy: Policy,
        join: Callable[[Group], Joined],
        progress: Progress,
        *,
        keep: int,
        trials: int | None,
    ):
        """Takes the parts of the run that it connects.

        Args:
          journal: of the run.
          supply: gives further trials.
          goal: what trials are judged by.
          policy: of the run.
          join: makes a row for a new group.
          progress: shows what is done.
          keep: for how many trials states are kept.
          trials: total number of trials, or None if unknown.
        """
        self._journal, self._supply, self._goal, self._policy = journal, supply, goal, policy
        self._join, self._keep = join, keep
        self._kept = journal.scores()
        self._unwritten: list[dict[str, Any]] = []
        self._collected: Collected | None = None
        self._line = _Line(progress, goal, policy.reports, trials, ended(journal))

    def ask(self, count: int, turn: int) -> tuple[Any, ...]:
        """Asks the search, and records what it gives."""
        given = self._supply.ask(count)
        self._journal.asked(turn, count, given.configs)
        joined = [self._join(group) for group in given.groups]
        return (*joined, Asked(count, given.trials, self._supply.left()))

    def hear(self, collected: Collected) -> Segment:
        """Gives the scores of a segment, up to the report in which a diverged trial failed."""
        self._collected = collected
        column = self._journal.metrics.index(self._goal.metric)
        scores = self._goal.scores(collected.values[:, :, column]).tolist()
        made = self._made(collected).tolist()
        return Segment(
            collected.order,
            [row[:count] for row, count in zip(scores, made)],
            collected.failed.tolist(),
            collected.seconds,
        )

    def wanted(self, leaving: Leaving) -> Leaving:
        """`leaving` with only the states that rank among the best so far."""
        kept = self._kept
        keep = []
        for lane, trial, score in leaving.keep:
            if score > -math.inf:
                keep.append((lane, trial, score))
                kept[trial] = score
        # Among equal scores the lower trial number stays, as in the journal.
        best = sorted(kept, key=lambda trial: (-kept[trial], trial))[: self._keep]
        self._kept = {trial: kept[trial] for trial in best}
        return leaving._replace(keep=tuple(one for one in keep if one[1] in self._kept))

    def note(self, s: Schedule, record: Record, taken: Taken) -> None:
        """Notes a turn for `write`, and tells the search which trials ended."""
        tests: dict[int, Any] = dict(taken.tests)
        rows: list[tuple[Any, ...]] = []
        if self._collected is not None:
            tests |= self._collected.tests
            rows = self._rows(self._collected)
            self._collected = None
        done = {end.trial for end in record.ended if end.status == DONE}
        scores = {trial: score for _, trial, score in record.leaving.keep}
        self._unwritten.append(
            {
                "record": record,
                "reports": rows,
                "tests": {trial: test for trial, test in tests.items() if trial in done},
                "states": [
                    (trial, scores[trial], checkpoint.to_bytes(state))
                    for trial, state in taken.states.items()
                ],
                "keep": self._keep,
            }
        )
        if record.ended:
            self._supply.tell(told(record.ended))
        self._line.show(s)

    def write(self) -> None:
        """Writes the noted turns, one transaction for each."""
        for brought in self._unwritten:
            self._journal.append(**brought)
        self._unwritten.clear()

    def _made(self, collected: Collected) -> np.ndarray:
        order, failed = collected.order, collected.failed
        first = np.asarray(order.done) + 1
        until = failed // self._policy.report_every + 2 - first
        return np.where(failed < 0, order.reports, np.clip(until, 0, order.reports))

    def _rows(self, collected: Collected) -> list[tuple[Any, ...]]:
        """Rows of trial, step and each metric, by sorted name."""
        order, made = collected.order, self._made(collected)
        index = np.asarray(order.done)[:, None] + 1 + np.arange(order.reports)
        there = np.arange(order.reports) < made[:, None]
        return list(
            zip(
                np.repeat(np.asarray(order.trials), made).tolist(),
                (index[there] * self._policy.report_every).tolist(),
                *collected.values[there].T.tolist(),
            )
        )


class _Line:
    """The progress line of a run, updated at most twenty times a second."""

    def __init__(
        self, progress: Progress, goal: Goal, reports: int, trials: int | None, before: int
    ):
        self._progress, self._goal = progress, goal
        self._reports, self._trials, self._before = reports, trials, before
        self._shown = -math.inf

    def show(self, s: Schedule) -> None:
        now = time.monotonic()
        if now - self._shown < SHOW_SECONDS:
            return
        self._shown = now
        tally = s.tally
        trials = self._trials or tally.ended + s.running + s.queued + len(s.waiting)
        total = max(1, (trials - self._before) * self._reports)
        best = self._goal.sign * tally.best
        self._progress.update(
            Status(
                trials=trials,
                done=tally.done,
                running=s.running,
                diverged=tally.diverged,
                stopped=tally.stopped,
                fraction=min(1.0, tally.reports / total),
                best=f"{best:.4g}" if math.isfinite(best) else "",
                before=self._before,
            )
        )


def ended(journal: Journal) -> int:
    """How many trials of the run have ended."""
    counts = journal.counts()
    return sum(counts.get(status, 0) for status in ENDED)
