"""The host's loop, which gives orders to the executor, applies events and records every turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from jdl.engine.events import (
    Ask,
    Collect,
    Leaving,
    Narrow,
    Order,
    Prepare,
    Record,
    Segment,
    Settle,
    Settled,
    Wait,
)
from jdl.engine.executor import Taken, Worker
from jdl.engine.ordering import next_order
from jdl.engine.policy import Policy
from jdl.engine.schedule import Schedule, after


@runtime_checkable
class Home(Protocol):
    """What the loop talks to besides the executor."""

    def ask(self, count: int, turn: int) -> tuple[Any, ...]:
        """Asks the search, and gives new rows and trials as events."""

    def hear(self, collected: Any) -> Segment:
        """Gives the event of a collected segment."""

    def wanted(self, leaving: Leaving) -> Leaving:
        """Limits `leaving` to what is needed."""

    def note(self, s: Schedule, record: Record, taken: Taken) -> None:
        """Notes a turn."""

    def write(self) -> None:
        """Writes the noted turns; called while segments run."""


def drive(
    s: Schedule,
    policy: Policy,
    executor: Worker,
    home: Home,
    stop: Callable[[Schedule], bool],
) -> Schedule:
    """Runs until every trial has ended, or until `stop` holds after a turn."""
    turn = s.turn
    while s.turn == turn or not stop(s):
        turn = s.turn
        if not policy.ordered:
            s = told(s, policy, executor.ready())
        s, order = next_order(s, policy)
        match order:
            case None:
                break
            case Order():
                executor.start(order)
            case Ask(count):
                s = told(s, policy, home.ask(count, turn))
            case Prepare(row):
                s = told(s, policy, [executor.prepare(row)])
            case Wait():
                s = told(s, policy, executor.ready(least=1))
            case Narrow():
                executor.narrow(order)
                s = told(s, policy, [order])
            case Collect():
                s = collected(s, policy, executor, home)
            case Settle():
                s = turned(s, policy, executor, home, Settled(), 0)
    return s


def told(s: Schedule, policy: Policy, events: Any) -> Schedule:
    """The schedule after events that are not turns."""
    for event in events:
        s, _ = after(s, policy, event)
    return s


def collected(s: Schedule, policy: Policy, executor: Worker, home: Home) -> Schedule:
    """The schedule after the oldest segment in flight."""
    home.write()
    row = s.flying[0].row
    s = turned(s, policy, executor, home, home.hear(executor.collect(row)), row)
    if s.closed(row):
        executor.release(row)
    return s


def turned(
    s: Schedule, policy: Policy, executor: Worker, home: Home, event: Any, row: int
) -> Schedule:
    """The schedule after a turn, which it notes."""
    s, record = after(s, policy, event)
    assert record is not None
    home.note(s, record, executor.take(row, home.wanted(record.leaving)))
    return s
