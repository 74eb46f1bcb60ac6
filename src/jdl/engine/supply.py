"""Where a run's trials come from after those that its groups start with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jdl.engine.group import Group, Queued

BATCH = 4096  # trials asked for at once, of a search that does not learn


class Supply(NamedTuple):
    """Where trials come from after those that the groups start with.

    Attributes:
      ask: `ask(count, turn, again)` gives up to `count` further trials with the
        group of each, whose queue does not hold it yet, and records them unless
        they are asked for `again` by a resumed run.
      tell: `tell(scores)` says how trials ended, by number; NaN has diverged.
      left: how many further ones it may give; inf where nobody knows.
      adaptive: whether what it gives depends on what it is told.
    """

    ask: Callable[[int, int, bool], list[tuple[Group, Queued]]]
    tell: Callable[[Sequence[tuple[int, float]]], None]
    left: Callable[[], float]
    adaptive: bool


def _none(count: int, turn: int, again: bool) -> list[tuple[Group, Queued]]:
    return []


NO_SUPPLY = Supply(_none, lambda scores: None, lambda: 0, False)
