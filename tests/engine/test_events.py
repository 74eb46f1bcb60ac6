"""Events: what the file of a run calls the ends of trials, and what an order leaves out."""

from __future__ import annotations

from tests.engine.by_hand import order

from jdl.engine import events
from jdl.engine.events import Leaving, Record, Segment


def test_the_names_of_statuses_are_those_of_the_file():
    running = events.PENDING, events.RUNNING
    assert running == ("pending", "running")
    assert (events.DONE, events.DIVERGED, events.STOPPED) == ("done", "diverged", "stopped")
    assert {*events.ENDED} == {"done", "diverged", "stopped"}


def test_what_is_not_said_did_not_happen():
    of = order(1, {0: (4, 0)})
    assert of[5:] == ((), (), (), None, ())
    assert Segment(of, [[0.5]], [-1]).seconds == 0.0
    assert Leaving() == ((), (), (), ()) and Record(3, "settle")[2:] == ((), (), (), Leaving())
