"""Where the trials of a run come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jdl.engine.events import Queued
from jdl.engine.executor import Group


class Given(NamedTuple):
    """Trials that a search gave.

    Attributes:
      trials: the label of each one's group, and the trial.
      configs: number and configuration of each.
      groups: those that are new.
    """

    trials: Sequence[tuple[str, Queued]] = ()
    configs: Sequence[tuple[int, Mapping[str, Any]]] = ()
    groups: Sequence[Group] = ()


class Supply(NamedTuple):
    """Where trials come from.

    Attributes:
      name: of the search.
      first: the trials known from the start.
      ask: `ask(count)` gives up to `count` further trials.
      tell: `tell(scores)` says how trials ended, by number; NaN has diverged.
      left: how many further ones it may give; inf where nobody knows.
      adaptive: whether what it gives depends on what it is told.
    """

    name: str
    first: Given
    ask: Callable[[int], Given]
    tell: Callable[[Sequence[tuple[int, float]]], None]
    left: Callable[[], float]
    adaptive: bool
