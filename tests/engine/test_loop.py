"""The host's loop: who is told what, call by call, with an executor and a home that only listen."""

from __future__ import annotations

import pytest
from tests.engine.by_hand import (
    Script,
    order,
    paused,
    policy,
    queued,
    row,
    schedule,
    seat,
    segment,
)
from tests.engine.pretended import PretendedExecutor

from jdl.engine.events import (
    Asked,
    Joined,
    Leaving,
    Narrow,
    Prepared,
    Record,
)
from jdl.engine.executor import Executor, LocalExecutor, Taken, Worker
from jdl.engine.loop import Home, collected, drive, told
from jdl.engine.recorder import Recorder
from jdl.engine.resume import Replay
from jdl.engine.rules import Verdicts
from jdl.engine.schedule import Schedule


class Listener:
    """Executor and home: writes down what it is told, and gives scores of 0.5."""

    def __init__(self, asked=(), prepared=()):
        self.calls: list[tuple] = []
        self.turns: list[tuple[int, Record, Taken]] = []
        self._asked, self._prepared, self._flying = list(asked), list(prepared), {}

    def prepare(self, row):
        self.calls.append(("prepare", row))
        return Prepared(row, 2)

    def ready(self, least=0):
        self.calls.append(("ready", least))
        return self._prepared.pop(0) if self._prepared else []

    def narrow(self, order):
        self.calls.append(("narrow", order))

    def start(self, order):
        self.calls.append(("start", order.row, order.trials, order.reports))
        self._flying[order.row] = order

    def collect(self, row):
        self.calls.append(("collect", row))
        return self._flying.pop(row)

    def take(self, row, leaving):
        self.calls.append(("take", row, leaving))
        return Taken({row: {"test": 0.25}})

    def release(self, row):
        self.calls.append(("release", row))

    def ask(self, count, turn):
        self.calls.append(("ask", count, turn))
        return self._asked.pop(0)

    def hear(self, collected):
        return segment(collected, *[[0.5] * collected.reports for _ in collected.lanes])

    def wanted(self, leaving):
        return leaving._replace(pause=(), drop=(17,))

    def note(self, s, record, taken):
        self.calls.append(("note", s.turn))
        self.turns.append((s.turn, record, taken))

    def write(self):
        self.calls.append(("write",))


class Part:
    """Those methods of a listener that are an executor's, or a home's."""

    def __init__(self, listener, protocol):
        for name in vars(protocol):
            if not name.startswith("_"):
                setattr(self, name, getattr(listener, name))


def parts(listener):
    return Part(listener, Worker), Part(listener, Home)


def run(s, it, listener, stop=lambda s: False):
    return drive(s, it, *parts(listener), stop)


def test_two_segments_start_before_the_first_is_collected():
    it, listener = policy(rule=Script((6,), *[Verdicts()] * 3).rule), Listener()
    s = schedule(
        row(None, ready=False, report_seconds=0.01),
        row(seat(4, 5), group="b"),
        queues={"a": (queued(1),)},
    )
    s = run(s, it, listener)
    leaving = Leaving(drop=(17,))
    assert listener.calls == [
        ("prepare", 0), ("start", 0, (1,), 6), ("start", 1, (4,), 1),
        ("write",), ("collect", 0), ("take", 0, leaving._replace(keep=((0, 1, 0.5),))), ("note", 1),
        ("release", 0),
        ("write",), ("collect", 1), ("take", 1, leaving._replace(keep=((0, 4, 0.5),))), ("note", 2),
        ("release", 1),
    ]  # fmt: skip
    assert s.turn == 2 and s.running == 0
    assert [(turn, record.turn) for turn, record, _ in listener.turns] == [(1, 1), (2, 2)]
    assert [taken for *_, taken in listener.turns] == [
        Taken({0: {"test": 0.25}}), Taken({1: {"test": 0.25}}),
    ]  # fmt: skip


def test_it_stops_after_a_turn_and_makes_one_at_least():
    it, seen = policy(rule=Script((1, 3, 5), *[Verdicts(go=[4])] * 3).rule), []

    def stop_at(turn):
        def stop(s):
            seen.append(s.turn)
            return s.turn >= turn

        return stop

    start = schedule(row(seat(4, 0, 1)))
    listener = Listener()
    s = run(start, it, listener, stop_at(0))
    assert (s.turn, seen, s.flying, s.rows[0].seats) == (1, [1], (), (seat(4, 1, 3),))
    assert run(s, it, listener, stop_at(3)).turn == 3 and seen == [1, 2, 3]


def test_programs_are_looked_for_before_each_order_where_none_counts():
    listener = Listener(prepared=[[], [Prepared(0, 1)]])
    s = schedule(row(None, ready=False), queues={"a": (queued(1),)})
    s = run(s, policy(), listener, lambda s: True)
    assert s.turn == 1
    assert listener.calls[:4] == [("ready", 0), ("ready", 1), ("ready", 0), ("start", 0, (1,), 1)]


def test_a_search_is_asked_and_the_rule_is_asked_to_settle():
    script = Script((2,), Verdicts(go=[3]), settles=Verdicts(stop=[9]))
    given = (Joined("b", 1, 1, 0.25), Asked(4096, [("b", queued(3))], 0))
    listener = Listener([given])
    s = schedule(row(None), exhausted=False, left=5, turn=7, waiting={9: paused(9, 2)})
    s = run(s, policy(rule=script.rule), listener, lambda s: True)
    # A rule settles only once nothing else can run.
    assert listener.calls[:3] == [("ask", 4096, 7), ("prepare", 1), ("start", 1, (3,), 2)]
    listener = Listener()
    s = schedule(row(None), waiting={9: paused(9, 2)})
    s = run(s, policy(rule=script.rule), listener)
    assert listener.calls == [("take", 0, Leaving(drop=(17,))), ("note", 1)]
    assert s.turn == 1 and listener.turns[0][1].kind == "settle"


def test_rows_are_narrowed_before_their_next_segment():
    lanes = [seat(4, 1, 3), None, None, None]
    s = schedule(row(*lanes, report_seconds=2.0, narrowing=True))
    listener = Listener()
    rule = Script((3,), Verdicts(go=[4])).rule
    s = run(s, policy(rule=rule), listener, lambda s: True)
    assert listener.calls[:2] == [("narrow", Narrow(0, 2, (0, 1))), ("start", 0, (4,), 1)]
    assert len(s.rows[0].seats) == 2


def test_events_that_are_no_turns():
    s = schedule(row(None), row(None, group="b", ready=False))
    now = told(s, policy(), [Prepared(1, 1), Asked(1, [("a", queued(4))], 2)])
    assert now.rows[1].ready and now.queues["a"] == (queued(4),) and now.turn == 0


def test_the_oldest_segment_is_the_one_that_is_collected():
    one, two = order(1, {0: (4, 0)}, row=1), order(1, {0: (5, 0)}, row=0)
    listener = Listener()
    listener._flying = {1: one, 0: two}
    s = schedule(row(seat(5)), row(seat(4), group="b"), flying=(one, two), rotation=())
    s = collected(s, policy(), *parts(listener))
    assert listener.calls == [
        ("write",), ("collect", 1), ("take", 1, Leaving(drop=(17,))), ("note", 1),
    ]  # fmt: skip
    assert s.flying == (two,) and s.rows[1].seats == (seat(4, 1),)


def test_what_carries_out_orders_and_what_is_told():
    """A replay is both; the executors are all that a schedule and a snapshot ask of them."""
    for one, other in [(Replay, Worker), (Replay, Home), (Recorder, Home), (LocalExecutor, Worker)]:
        assert issubclass(one, other)
    assert isinstance(PretendedExecutor(), Executor)
    assert not issubclass(Recorder, Worker) and not issubclass(LocalExecutor, Home)


def test_a_rule_that_settles_nothing_is_no_endless_loop():
    s: Schedule = schedule(row(None), waiting={9: paused(9, 2)})
    with pytest.raises(RuntimeError, match="names none"):
        run(s, policy(rule=Script((2,)).rule), Listener())
