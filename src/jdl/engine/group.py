"""A static group: the trials that differ only in numbers, and so share a program."""

from __future__ import annotations

from typing import NamedTuple

from jdl.engine.contract import Shapes
from jdl.engine.cost import report_seconds
from jdl.engine.plan import Plan
from jdl.engine.workload import Workload


class Group(NamedTuple):
    """What the trials of a group have in common.

    Attributes:
      label: their static values.
      work: what they run.
      shapes: of one lane.
      plan: how they are laid out.
    """

    label: str
    work: Workload
    shapes: Shapes
    plan: Plan

    @property
    def report_seconds(self) -> float:
        """An estimate for one report of one lane, the same every time."""
        return report_seconds(self.work.report_every, self.plan.lane_bytes)
