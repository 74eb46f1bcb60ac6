"""Programs compiled on a thread: in the order of requests, once for all rows that run the same."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import pytest
from tests.engine.pretended import group

from jdl.engine import compiler
from jdl.engine.compiler import Compiler
from jdl.engine.devices import lane_mesh
from jdl.engine.starting import Drawn, Refill


class Built(NamedTuple):
    """As much of a program as the compiler needs; those of group b were in the cache."""

    name: str
    found: bool
    refill: Refill = Refill(None, None, Drawn((), (), None), None)  # type: ignore[arg-type]


@pytest.fixture
def built(monkeypatch):
    """What was compiled: group and lanes; each program waits until `go` is set."""
    seen: list[Any] = []
    seen_go = threading.Event()
    seen_go.set()

    def compile_lanes(work, shapes, mesh, lanes, unroll):
        assert seen_go.wait(60)
        seen.append((shapes, lanes, unroll))
        return Built(f"{shapes} {lanes}", shapes == "b")

    monkeypatch.setattr(compiler, "usable_cores", lambda: 1)
    monkeypatch.setattr(compiler, "compile_lanes", compile_lanes)
    monkeypatch.setattr(compiler, "widest_that_fits", lambda build, lanes, mesh, say: build(lanes))
    return seen, seen_go


def named(label):
    return group(label, 4, 1)._replace(shapes=label)


def test_programs_come_in_the_order_of_requests(built):
    seen, go = built
    one = Compiler(lane_mesh(1), print)
    go.clear()
    one.begin(3, named("a"), 4)
    one.begin(1, named("b"), 2)
    assert 3 in one and 1 in one and 2 not in one and one.done() == []
    go.set()
    assert one.take(1).name == "b 2" and 1 not in one
    assert one.done(least=1) == [3] and one.take(3).name == "a 4"
    assert seen == [("a", 4, 1), ("b", 2, 1)] and len(one.seconds) == 2
    assert one.found == 1
    assert one.done() == one.done(least=1) == []
    one.close()


def test_as_many_programs_compile_at_once_as_there_are_cores(built, monkeypatch):
    """Of five programs on eight cores four begin; none ends before all four have begun."""
    began = threading.Barrier(5, timeout=60)

    def compile_lanes(work, shapes, mesh, lanes, unroll):
        if lanes < 5:
            began.wait()
        return Built(f"{lanes}", False)

    monkeypatch.setattr(compiler, "usable_cores", lambda: 8)
    monkeypatch.setattr(compiler, "compile_lanes", compile_lanes)
    one = Compiler(lane_mesh(1), print)
    for row in range(5):
        one.begin(row, named("a"), row + 1)
    began.wait()
    assert [one.take(row).name for row in range(5)] == ["1", "2", "3", "4", "5"]
    one.close()


def test_rows_of_one_group_and_width_share_a_program(built):
    seen, go = built
    one = Compiler(lane_mesh(1), print)
    go.clear()
    for row, (label, lanes) in enumerate([("a", 4), ("a", 4), ("a", 2), ("b", 4)]):
        one.begin(row, named(label), lanes)
    go.set()
    assert [one.take(row).name for row in (1, 0, 2, 3)] == ["a 4", "a 4", "a 2", "b 4"]
    assert seen == [("a", 4, 1), ("a", 2, 1), ("b", 4, 1)]
    # Once it is taken, it is the row's own.
    one.begin(5, named("a"), 4)
    assert one.take(5).name == "a 4" and len(seen) == 4
    one.close()


def test_closing_drops_what_has_not_begun(built):
    seen, go = built
    one = Compiler(lane_mesh(1), print)
    go.clear()
    one.begin(0, named("a"), 1)
    one.begin(1, named("b"), 1)
    one.close()
    go.set()
    assert one.take(0).name == "a 1" and seen == [("a", 1, 1)]
