"""The cost of reports and programs, estimated without a clock or measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from jdl.engine.events import DIVERGED, DONE, STOPPED, Ended, Segment

COMPILE_SECONDS = 3.0  # an estimate for one program
STEP_SECONDS = 5e-6  # fixed cost of a lane's step, besides its memory traffic
BYTES_PER_SECOND = 1e10
SEGMENT_SECONDS = 0.1  # in shorter segments the host's share shows
LONG_SECONDS = 1.0  # in segments of this length the host's share does not show
ORDERED_SECONDS = 0.5  # estimated length of a segment in which nothing is decided


def report_seconds(report_every: int, lane_bytes: int) -> float:
    """An estimate for one report of one lane: an order of magnitude, the same every time."""
    return report_every * (STEP_SECONDS + lane_bytes / BYTES_PER_SECOND)


def worthwhile(seconds: float) -> bool:
    """Whether saving `seconds` of device time is worth compiling another program."""
    return seconds > 2 * COMPILE_SECONDS


def short(seconds: float) -> bool:
    """Whether the host's share shows beside a segment of `seconds`."""
    return seconds < LONG_SECONDS


def reports_ahead(ordered: bool, measured: float | None, estimated: float, lanes: int) -> int:
    """The maximum number of reports in a segment.

    Args:
      ordered: whether results depend on the order of segments, so that no clock may matter.
      measured: seconds of a report of the whole row, None before the first.
      estimated: seconds of a report of one lane.
      lanes: on each device.
    """
    if ordered:
        # Short enough that checkpoints and signals do not wait long.
        return max(1, round(ORDERED_SECONDS / estimated / lanes))
    return 1 if measured is None else max(1, round(SEGMENT_SECONDS / measured))


def measured(before: float | None, seconds: float, reports: int) -> float:
    """Seconds per report, updated after waiting for a segment."""
    if before is not None or seconds > SEGMENT_SECONDS:
        return max(seconds, 1e-4) / reports
    # The first wait may be short because the segment began long before.
    return max(seconds / reports, SEGMENT_SECONDS / 8)


class Tally(NamedTuple):
    """The progress of a run.

    Attributes:
      done: number of trials that finished.
      diverged: number of trials that diverged.
      stopped: number of trials that were stopped.
      reports: made, plus those that trials which ended early will never make.
      lane_steps: training steps of all lanes, idle ones included.
      queued_steps: lane steps taken while trials waited for a lane.
      busy_steps: queued steps that trained a trial.
      best: the best score reported.
    """

    done: int = 0
    diverged: int = 0
    stopped: int = 0
    reports: int = 0
    lane_steps: int = 0
    queued_steps: int = 0
    busy_steps: int = 0
    best: float = -math.inf

    @property
    def busy(self) -> float:
        """The share of queued steps that trained a trial; 1.0 if no trial ever waited."""
        return self.busy_steps / self.queued_steps if self.queued_steps else 1.0

    @property
    def afresh(self) -> Tally:
        """A copy with only the counts of ended trials."""
        return Tally(self.done, self.diverged, self.stopped)

    @property
    def ended(self) -> int:
        """How many trials ended."""
        return self.done + self.diverged + self.stopped

    def with_segment(self, segment: Segment, width: int, report_every: int, queued: bool) -> Tally:
        """Adds a segment of `width` lanes; `queued` says whether trials waited for a lane."""
        made = sum(map(len, segment.scores))
        steps = width * segment.order.reports * report_every
        return self._replace(
            reports=self.reports + made,
            lane_steps=self.lane_steps + steps,
            queued_steps=self.queued_steps + queued * steps,
            busy_steps=self.busy_steps + queued * made * report_every,
            best=max([self.best, *(max(scores) for scores in segment.scores if scores)]),
        )

    def with_ended(self, ended: Sequence[Ended], reports: int, report_every: int) -> Tally:
        """Adds ended trials; reports that they will never make count as made."""
        statuses = [end.status for end in ended]
        early = [reports - -(-end.steps // report_every) for end in ended]
        return self._replace(
            done=self.done + statuses.count(DONE),
            diverged=self.diverged + statuses.count(DIVERGED),
            stopped=self.stopped + statuses.count(STOPPED),
            reports=self.reports + sum(max(0, left) for left in early),
        )


class Stats(NamedTuple):
    """What a run cost.

    Attributes:
      compilations: lane programs compiled, compactions among them.
      found: lane programs that the cache had, which were not compiled.
      compile_seconds: the time that both took.
      seconds: wall time, any wait for compilation included.
      lane_steps: training steps of all lanes, idle ones included.
      complete: whether every trial ended; False after an interruption.
      compactions: programs of fewer lanes, compiled for the tail of a group.
      busy: the share of `lane_steps` that trained a trial while others waited
        for a lane; 1.0 if none ever waited.
      out_of_time: whether the time limit was reached.
    """

    compilations: int
    found: int
    compile_seconds: float
    seconds: float
    lane_steps: int
    complete: bool
    compactions: int
    busy: float
    out_of_time: bool
