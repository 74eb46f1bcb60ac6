"""The tail of a group: fewer lanes once few of them have a trial.

What is decided here depends on who sits where and on how far they are, never on
a clock: the last bits of a result may depend on the number of lanes.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future

import numpy as np

from jdl.engine.group import Group
from jdl.engine.program import LaneProgram

COMPILE_SECONDS = 3.0  # what a program is reckoned to cost
STEP_SECONDS = 5e-6  # of a step of one lane, beside what its bytes take
BYTES_PER_SECOND = 1e10


def report_seconds(group: Group) -> float:
    """What a report of one lane is reckoned to take: an order of magnitude, the same every time."""
    each = STEP_SECONDS + group.plan.lane_bytes / BYTES_PER_SECOND
    return group.work.report_every * each


class Compaction:
    """Narrows groups by half, and half again, and counts the programs that it takes."""

    def __init__(self) -> None:
        self.count = 0  # programs whose compilation began
        self.used = 0
        self._coming: dict[Group, Future[LaneProgram]] = {}

    def consider(self, group: Group, pool: Executor) -> list[LaneProgram]:
        """Narrows `group`, for which no trial waits, if half of its lanes would idle for long.

        The program is compiled on a thread from when a quarter of the lanes is
        idle. Gives the program if it took over.
        """
        lanes, busy = group.lanes_per_device, int(group.busy.size)
        fewer = 1 << max(0, (lanes - 1).bit_length() - 1)
        if not busy or fewer == lanes or 4 * busy > 3 * group.width:
            return []
        if group not in self._coming and self._worthwhile(group, fewer):
            self.count += 1
            self._coming[group] = pool.submit(group.build, fewer)
        if group not in self._coming or busy > fewer * group.devices:
            return []
        program = self._coming.pop(group).result()
        self.used += 1
        idle = np.flatnonzero(group.trial < 0)
        group.take_lanes(np.concatenate([group.busy, idle])[: program.width], program)
        return [program]

    def _worthwhile(self, group: Group, fewer: int) -> bool:
        left = int(np.max(group.work.reports - group.done[group.busy]))
        saved = left * (group.lanes_per_device - fewer) * report_seconds(group)
        return saved > 2 * COMPILE_SECONDS
