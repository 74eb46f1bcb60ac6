"""What segments cost: how long they are made, and what lanes did meanwhile."""

from __future__ import annotations

from typing import NamedTuple

from jdl.engine.compaction import report_seconds
from jdl.engine.group import Group, Segment

SEGMENT_SECONDS = 0.1  # below that, the host's share of a segment shows
ORDERED_SECONDS = 0.5  # as reckoned, of a segment in which nothing is decided


class Stats(NamedTuple):
    """What a run cost.

    Attributes:
      compilations: lane programs compiled, compactions among them.
      compile_seconds: the sum over them.
      seconds: wall time, compilation included where it was waited for.
      lane_steps: training steps of all lanes, with those that lanes idled.
      complete: whether every trial ended; False after an interruption.
      compactions: programs of fewer lanes, compiled for the tail of a group.
      busy: the share of `lane_steps` that trained a trial, as long as any trial
        waited for a lane; 1.0 if none ever did.
      out_of_time: whether the time given was over.
    """

    compilations: int
    compile_seconds: float
    seconds: float
    lane_steps: int
    complete: bool
    compactions: int
    busy: float
    out_of_time: bool


class Pace:
    """Chooses how long segments are, by the clock where no order depends on it; counts steps."""

    def __init__(self, ordered: bool, every_report: bool):
        self._ordered, self._every_report = ordered, every_report
        self._seconds: dict[Group, float] = {}  # of a report
        self._queued = [0, 0]  # steps of lanes, and of those that were busy, while trials waited
        self.lane_steps = 0

    @property
    def busy(self) -> float:
        """The share of steps that trained a trial while trials waited; 1.0 if none ever did."""
        lanes, busy = self._queued
        return busy / lanes if lanes else 1.0

    def reports_of(self, group: Group) -> int:
        """How many reports the next segment of `group` makes at most."""
        if self._ordered:
            # No clock: short enough that checkpoints and signals need not wait for long.
            return max(1, round(ORDERED_SECONDS / report_seconds(group) / group.lanes_per_device))
        seconds = self._seconds.get(group)
        if seconds is None or self._every_report:
            return 1
        return max(1, round(SEGMENT_SECONDS / seconds))

    def took(self, group: Group, segment: Segment, seconds: float, queued: bool) -> None:
        """Notes that a segment was waited for so long, and whether trials waited for a lane."""
        if group in self._seconds or seconds > SEGMENT_SECONDS:
            self._seconds[group] = max(seconds, 1e-4) / segment.reports
        else:
            self._seconds[group] = max(seconds / segment.reports, SEGMENT_SECONDS / 8)
        steps = group.width * segment.reports * group.work.report_every
        self.lane_steps += steps
        if queued:
            busy = int(segment.made.sum()) * group.work.report_every
            self._queued = [self._queued[0] + steps, self._queued[1] + busy]
