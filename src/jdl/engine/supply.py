"""The source of a run's trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jdl.engine.events import Queued
from jdl.engine.group import Group


class Given(NamedTuple):
    """Trials that a search gave.

    Attributes:
      trials: pairs of group label and trial.
      configs: number and configuration of each.
      groups: new groups.
    """

    trials: Sequence[tuple[str, Queued]] = ()
    configs: Sequence[tuple[int, Mapping[str, Any]]] = ()
    groups: Sequence[Group] = ()


class Supply(NamedTuple):
    """The source of trials.

    Attributes:
      name: of the search.
      first: the trials known from the start.
      ask: `ask(count)` gives up to `count` more trials.
      tell: `tell(scores)` takes number and score of ended trials; NaN means diverged.
      left: `left()` gives how many more it may give; inf if unknown.
      adaptive: whether what it gives depends on what it is told.
    """

    name: str
    first: Given
    ask: Callable[[int], Given]
    tell: Callable[[Sequence[tuple[int, float]]], None]
    left: Callable[[], float]
    adaptive: bool
