"""The devices of this process: programs compiled ahead, narrowed, and rows that come back."""

from __future__ import annotations

import gc
import threading
import weakref

import jax
import numpy as np
import pytest
from tests.engine.by_hand import order
from tests.engine.toys import SEED, dataset, line_by_hand, line_queued, line_workload

from jdl.engine import compiler
from jdl.engine.contract import trace_shapes
from jdl.engine.cost import report_seconds
from jdl.engine.devices import lane_mesh
from jdl.engine.events import Leaving, Narrow, Prepared
from jdl.engine.executor import Executor, LocalExecutor, Taken
from jdl.engine.group import Group
from jdl.engine.plan import Plan
from jdl.engine.program import compile_lanes
from jdl.engine.row import Row
from jdl.engine.workload import splits_of


@pytest.fixture(scope="module")
def group():
    work = line_workload()
    return Group("line", work, trace_shapes(work, {"lr": np.float32(0)}), Plan(2, 2, 1, 5000, ""))


@pytest.fixture(scope="module")
def programs():
    return {}


@pytest.fixture
def start(programs, group, monkeypatch):
    """Starts executors on two devices, which share the programs that they compile."""
    built: list[int] = []

    def compile_once(work, shapes, mesh, lanes, unroll):
        built.append(lanes)
        assert work is group.work and shapes is group.shapes and unroll == 1
        if lanes not in programs:
            programs[lanes] = compile_lanes(work, shapes, mesh, lanes, unroll)
        return programs[lanes]

    monkeypatch.setattr(compiler, "compile_lanes", compile_once)
    started, mesh = [], lane_mesh(2)

    def start_one():
        said: list[str] = []
        one = LocalExecutor(mesh, splits_of(dataset()), SEED, said.append)
        one.said, one.built = said, built
        started.append(one)
        return one

    yield start_one
    for one in started:
        one.__exit__()


FRESH = tuple((lane, line_queued(trial)) for lane, trial in ((0, 4), (3, 6)))
FIRST = order(2, {0: (4, 0), 3: (6, 0)}, fresh=FRESH)
OUT_OF_MEMORY = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while allocating")


def test_a_row_is_compiled_prepared_run_and_collected(start, group):
    one = start()
    assert isinstance(one, Executor) and one.devices == 2
    assert group.report_seconds == report_seconds(5, 5000)
    one.join(group, 2, 4)
    assert one.ready() == [] and one.built == []
    one.compile(0)
    assert one.ready(least=1) == [Prepared(0, 4)] and one.ready() == one.ready(1) == []
    one.compile(0)
    assert one.built == [2] and len(one.compiled) == 1 and one.compiled[0] > 0
    one.start(FIRST)
    brought = one.collect(0)
    assert brought.seconds > 0 and brought.order is FIRST
    np.testing.assert_allclose(brought.values[1], line_by_hand(6)[1][:2], rtol=1e-4)
    assert one.narrowed == 0 and one.said == []


def test_a_released_row_leaves_no_program_and_no_lanes(start, group):
    one = start()
    one.join(group, 2, 4)
    one.start(FIRST)
    one.collect(0)
    kept = [weakref.ref(part) for part in (one._rows[0], jax.tree.leaves(one._rows[0]._blocks)[0])]
    one.release(0)
    gc.collect()
    assert [ref() for ref in kept] == [None, None] and one.save([]) == {}


def test_a_row_is_prepared_when_it_is_started_at_the_latest(start, group):
    one = start()
    one.join(group, 1, 2)
    one.join(group, 2, 4)
    one.start(FIRST._replace(row=1))
    assert one.collect(1).values.shape == (2, 2, 2) and one.built == [2]
    assert one.prepare(0) == Prepared(0, 2) and one.built == [2, 1]


def test_two_rows_of_a_group_run_one_program(start, group):
    one = start()
    assert one.doubles
    for row, lanes in enumerate((2, 2, 1)):
        one.join(group, lanes, 2 * lanes)
        one.compile(row)
    rows = []
    while len(rows) < 3:
        rows += one.ready(least=1)
    # Two programs compile at once, and either may be ready first.
    assert sorted(rows) == [Prepared(0, 4), Prepared(1, 4), Prepared(2, 2)]
    assert sorted(one.built) == [1, 2]
    second = order(2, {0: (4, 0)}, row=1, fresh=((0, line_queued(4)),))
    one.start(FIRST)
    one.start(second)
    first, other = one.collect(0), one.collect(1)
    np.testing.assert_array_equal(first.values[0], other.values[0])


def test_programs_that_are_not_compiled_yet_are_not_waited_for(start, group, monkeypatch):
    go, compile_lanes = threading.Event(), compiler.compile_lanes

    def slow(*arguments):
        assert go.wait(60)
        return compile_lanes(*arguments)

    monkeypatch.setattr(compiler, "compile_lanes", slow)
    one = start()
    one.join(group, 2, 4)
    one.compile(0)
    one.compile(0)
    assert one.ready() == []
    go.set()
    assert one.ready(least=1) == [Prepared(0, 4)] and one.built == [2]


def test_trials_that_leave_are_tested_kept_and_put_aside(start, group):
    one = start()
    one.join(group, 2, 4)
    one.start(FIRST)
    one.collect(0)
    weights = np.array(one.take(0, Leaving(keep=((3, 6, 0.5),))).states[6].weights)
    np.testing.assert_allclose(weights, line_by_hand(6, 2)[0], rtol=1e-4)
    taken = one.take(0, Leaving(finish=((0, 4),), pause=((3, 6),)))
    assert taken == Taken({4: {"test_loss": pytest.approx(line_by_hand(4, 2)[2], rel=1e-4)}}, {})
    aside = {path for path in one.save([]) if path.startswith("aside|6|")}
    assert aside == set(one.save([])) and "aside|6|state.weights" in {
        path.replace("/", ".") for path in aside
    }
    one.start(order(2, {1: (6, 2)}, resumed=((1, line_queued(6)),)))
    np.testing.assert_allclose(one.collect(0).values[0], line_by_hand(6)[1][2:], rtol=1e-4)
    assert one.save([]) == {}
    one.take(0, Leaving(pause=((1, 6),)))
    one.take(0, Leaving(drop=(6, 17)))
    assert one.save([]) == {}


def test_it_goes_on_from_what_was_saved(start, group):
    """A segment in flight, a row beside it and a trial without a lane."""
    one, two = start(), start()
    for each in (one, two):
        each.join(group, 1, 2)
        each.join(group, 2, 4)
    one.start(FIRST._replace(row=1))
    one.collect(1)
    one.take(1, Leaving(pause=((0, 4),)))
    second = order(1, {3: (6, 2)}, row=1)
    one.start(second)
    arrays = one.save([1])
    two.load(arrays, [second])
    assert two.save([1]).keys() == arrays.keys()
    third = order(1, {2: (4, 2), 3: (6, 3)}, row=1, resumed=((2, line_queued(4)),))
    brought = []
    for each in (one, two):
        brought.append(each.collect(1))
        each.start(third)
        brought.append(each.collect(1))
    for lived, again in zip(brought[:2], brought[2:]):
        np.testing.assert_array_equal(lived.values, again.values)
        assert lived.order == again.order
    np.testing.assert_allclose(brought[1].values[0, 0], line_by_hand(4)[1][2], rtol=1e-4)
    # What was put aside elsewhere goes on as well.
    three = start()
    three.join(group, 2, 4)
    lane = {p.removeprefix("aside|4|"): a for p, a in arrays.items() if p.startswith("aside|4|")}
    three.put_aside({4: lane})
    three.start(order(1, {1: (4, 2)}, resumed=((1, line_queued(4)),)))
    np.testing.assert_array_equal(three.collect(0).values[0], brought[1].values[0])


def test_a_narrower_program_is_compiled_ahead_and_taken_over(start, group):
    one = start()
    one.join(group, 2, 4)
    one.start(FIRST)
    one.narrow(Narrow(0, 1))
    one.collect(0)
    one.narrow(Narrow(0, 1, (3, 0)))
    assert one.narrowed == 1 and one.built == [2, 1] and len(one.compiled) == 2
    one.start(order(2, {0: (6, 2), 1: (4, 2)}))
    brought = one.collect(0)
    for index, trial in ((0, 6), (1, 4)):
        np.testing.assert_allclose(brought.values[index], line_by_hand(trial)[1][2:], rtol=1e-4)
    # Without being compiled ahead it is compiled then, and a row comes back at that width.
    two = start()
    two.join(group, 2, 4)
    two.start(FIRST)
    two.collect(0)
    two.narrow(Narrow(0, 1, (3, 0)))
    assert two.narrowed == 1 and len(two.save([0])["row|0|stream"]) == 2
    assert two._groups[0] == (group, 1, 2)


def test_a_row_that_does_not_fit_while_it_runs_is_halved(start, group, monkeypatch):
    warm_up = Row.warm_up

    def crowded(self):
        if self._program.width > 2:
            raise OUT_OF_MEMORY
        warm_up(self)

    monkeypatch.setattr(Row, "warm_up", crowded)
    one = start()
    one.join(group, 2, 4)
    assert one.prepare(0) == Prepared(0, 2)
    assert one.said == ["Narrowed to 1 lanes a device: a segment ran out of memory."]
    assert one.built == [2, 1] and one._groups[0] == (group, 1, 2)
    saved = start()
    saved.join(group, 2, 4)
    with pytest.raises(MemoryError, match=r"line: the checkpoint has 4 lanes, but only 2 fit"):
        saved.load({"row|0|stream": np.zeros(4, np.uint32)}, [])


@pytest.mark.parametrize(("lanes", "error"), [(1, OUT_OF_MEMORY), (2, RuntimeError("other"))])
def test_what_cannot_be_narrowed_is_raised(start, group, monkeypatch, lanes, error):
    if not isinstance(error, jax.errors.JaxRuntimeError):
        error = jax.errors.JaxRuntimeError("INTERNAL: other")

    def fails(self):
        raise error

    monkeypatch.setattr(Row, "warm_up", fails)
    one = start()
    one.join(group, lanes, 2 * lanes)
    with pytest.raises(jax.errors.JaxRuntimeError, match=str(error)[:8]):
        one.prepare(0)


def test_a_row_wider_than_its_devices_runs_in_blocks(start, group):
    """Eight lanes were planned for four devices of two, and two devices are there now."""
    one = start()
    one.join(group, 2, 8)
    assert one.prepare(0) == Prepared(0, 8)
    fresh = ((0, line_queued(4)), (7, line_queued(6)))
    one.start(order(2, {0: (4, 0), 7: (6, 0)}, fresh=fresh))
    values = one.collect(0).values
    two = start()
    two.join(group, 2, 4)
    two.start(FIRST)
    np.testing.assert_array_equal(values, two.collect(0).values)


def test_leaving_it_ends_its_thread(start, group):
    with LocalExecutor(lane_mesh(2), {}, SEED, print) as one:
        assert isinstance(one, LocalExecutor)
        one.join(group, 2, 4)
    with pytest.raises(RuntimeError, match="after shutdown"):
        one.compile(0)
