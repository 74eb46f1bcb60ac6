"""Rows of lanes against each trial alone in NumPy, and against each other bit for bit."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from tests.engine.by_hand import order
from tests.engine.toys import SEED, dataset, line_by_hand, line_queued, line_workload

from jdl import tree
from jdl.engine.checkpoint import CheckpointError
from jdl.engine.contract import trace_shapes
from jdl.engine.devices import lane_mesh
from jdl.engine.program import compile_lanes
from jdl.engine.row import Row
from jdl.engine.workload import splits_of


@pytest.fixture(scope="module")
def programs():
    """Programs by lanes on a device and devices."""
    work = line_workload()
    shapes = trace_shapes(work, {"lr": np.float32(0)})
    sizes = [(2, 2), (2, 1), (1, 2)]
    return {size: compile_lanes(work, shapes, lane_mesh(size[1]), size[0], 1) for size in sizes}


@pytest.fixture
def make(programs):
    def make_row(lanes=2, devices=2, width=4):
        program = programs[lanes, devices]
        data = jax.device_put(splits_of(dataset()), program.replicated)
        return Row(program, width, SEED, data)

    return make_row


def run(row, of, aside=None):
    row.start(of, aside or {})
    return row.collect()


# Trials 4, 9 and 6 start in lanes 0, 1 and 3; nobody is in lane 2.
FRESH = tuple((lane, line_queued(trial)) for lane, trial in ((0, 4), (1, 9), (3, 6)))
FIRST = order(2, {0: (4, 0), 1: (9, 0), 3: (6, 0)}, fresh=FRESH)
# Then 4 goes on to its end, 7 starts beside it and 6 makes a report less than it needs.
SECOND = order(2, {0: (4, 2), 1: (7, 0), 3: (6, 2)}, fresh=((1, line_queued(7)),), finishing=(0, 3))


def leaves(row, lane):
    return {path: leaf.tobytes() for path, leaf in tree.named_leaves(row.lane(lane)).items()}


def same(one, other):
    """Whether what was collected is the same to the bit."""
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.failed, other.failed)
    np.testing.assert_equal(one.tests, other.tests)
    assert one.order == other.order


def test_a_row_makes_the_reports_of_each_trial_alone(make):
    row = make()
    row.warm_up()
    first = run(row, FIRST)
    assert first.order is FIRST and first.values.shape == (3, 2, 2) and first.tests == {}
    assert first.seconds == 0.0
    for index, trial in ((0, 4), (2, 6)):
        np.testing.assert_allclose(first.values[index], line_by_hand(trial)[1][:2], rtol=1e-4)
    assert first.failed.tolist() == [-1, 1, -1] and np.isnan(first.values[1]).all()
    second = run(row, SECOND)
    for index, (trial, reports) in enumerate(((4, slice(2, 4)), (7, slice(2)), (6, slice(2, 4)))):
        np.testing.assert_allclose(second.values[index], line_by_hand(trial)[1][reports], rtol=1e-4)
    assert second.failed.tolist() == [-1, -1, -1]
    assert second.tests.keys() == {4, 6}
    for trial in (4, 6):
        assert second.tests[trial] == {"test_loss": pytest.approx(line_by_hand(trial)[2], rel=1e-4)}
    np.testing.assert_allclose(row.lane(3).state.weights, line_by_hand(6)[0], rtol=1e-4)
    # Those of trials that end early are made when they are asked for.
    (early,) = row.tests([1])
    assert early == {"test_loss": pytest.approx(line_by_hand(7, 2)[2], rel=1e-4)}
    assert row.tests([3, 1])[1] == early and row.lane(1).step == 10


def test_lanes_that_nothing_happens_to_go_on(make):
    row, other = make(), make()
    whole = run(row, FIRST._replace(reports=4))
    parts = [run(other, FIRST._replace(reports=1))]
    parts += [run(other, FIRST._replace(reports=1, fresh=())) for _ in range(3)]
    np.testing.assert_array_equal(whole.values, np.concatenate([p.values for p in parts], axis=1))


def test_a_row_of_blocks_is_the_row_of_one(make):
    """Two blocks of two lanes on one device, and two lanes on each of two: the same to the bit."""
    one, two = make(), make(2, 1)
    two.warm_up()
    same(run(one, FIRST), run(two, FIRST))
    put = {5: {path: leaf * 0 + 1 for path, leaf in tree.named_leaves(one.lane(0)).items()}}
    third = order(1, {0: (4, 2), 1: (7, 0), 2: (5, 1), 3: (6, 2)}, copied=(0, 3, 2, 0),
                  fresh=((1, line_queued(7)),), resumed=((2, line_queued(5)),),
                  changed=((3, line_queued(6, rate=0.01)),), finishing=(2,))  # fmt: skip
    for of in (SECOND, third):
        same(run(one, of, put), run(two, of, put))
        assert [leaves(one, n) for n in range(4)] == [leaves(two, n) for n in range(4)]
    np.testing.assert_equal(one.tests([3, 0]), two.tests([3, 0]))
    # Three lanes fill a block and a half.
    half = make(2, 1, width=3)
    short = order(2, {0: (4, 0), 1: (9, 0)}, fresh=FRESH[:2])
    same(run(half, short), run(make(), short))


def test_a_lane_takes_the_state_of_another_to_the_bit(make):
    for size in ((2, 2), (2, 1)):
        row = make(*size)
        run(row, FIRST)
        before = [leaves(row, lane) for lane in range(4)]
        row.start(order(0, {0: (4, 2)}, copied=(3, 0, 2, 3)), {})
        row.collect()
        assert [leaves(row, lane) for lane in range(4)] == [before[n] for n in (3, 0, 2, 3)]


def test_a_row_that_does_not_fill_its_program_copies_its_own_lanes(make):
    row = make(width=3)
    run(row, order(2, {0: (4, 0), 2: (6, 0)}, fresh=((0, line_queued(4)), (2, line_queued(6)))))
    before = [leaves(row, lane) for lane in range(4)]
    row.start(order(0, {0: (4, 2)}, copied=(2, 1, 0)), {})
    row.collect()
    assert [leaves(row, lane) for lane in range(4)] == [before[n] for n in (2, 1, 0, 3)]


def test_a_trial_goes_on_in_another_lane_with_its_own_stream(make):
    row = make()
    run(row, FIRST)
    aside = {6: tree.named_leaves(row.lane(3)), 4: tree.named_leaves(row.lane(0))}
    resumed = ((1, line_queued(6)), (3, line_queued(4)))
    brought = run(row, order(2, {1: (6, 2), 3: (4, 2)}, resumed=resumed), aside)
    for index, trial in ((0, 6), (1, 4)):
        np.testing.assert_allclose(brought.values[index], line_by_hand(trial)[1][2:], rtol=1e-4)


def test_a_trial_with_another_rate_goes_on_with_that(make):
    row = make()
    fresh = ((2, line_queued(3, stream=27)),)
    run(row, order(2, {2: (3, 0)}, fresh=fresh))
    changed = order(1, {2: (3, 2)}, changed=((2, line_queued(3, 27, rate=0.0)),))
    before = np.array(row.lane(2).state.weights)
    run(row, changed)
    np.testing.assert_array_equal(row.lane(2).state.weights, before)


def test_a_row_comes_back_with_its_segment_in_flight(make):
    row = make()
    run(row, FIRST)
    row.start(SECOND, {})
    arrays = row.save()
    assert {path.split("|")[0] for path in arrays} == {"numbers", "stream", "lanes", "flight"}
    assert len(arrays["stream"]) == 4 and arrays["flight|0"].shape == (4, 4, 2)
    third = order(1, {1: (7, 2), 2: (5, 0)}, fresh=((2, line_queued(5)),))
    expected = [row.collect(), run(row, third)]
    for size in ((2, 2), (2, 1)):
        other = make(*size)
        other.load(arrays, 4, SECOND)
        same(other.collect(), expected[0])
        same(run(other, third), expected[1])
        assert [leaves(other, n) for n in (0, 1, 3)] == [leaves(row, n) for n in (0, 1, 3)]
    # One block and a half becomes whole again, and nothing is in flight where nothing was.
    half = make(2, 1, width=3)
    short = order(2, {0: (4, 0), 1: (9, 0)}, fresh=FRESH[:2])
    run(half, short)
    wide = make()
    wide.load(half.save(), 3, None)
    assert "flight|0" not in half.save() and len(wide.save()["stream"]) == 4
    again = order(1, {0: (4, 2)})
    same(run(wide, again), run(half, again))
    # A lane that pads a program computes what its neighbour does, so that it is finite.
    padded = make(2, 1, width=3)
    padded.load({path: array[:3] for path, array in arrays.items()}, 3, None)
    for array in padded.save().values():
        np.testing.assert_array_equal(array[3], array[2])


def test_lanes_of_another_program_are_refused(make):
    row = make()
    arrays = row.save()
    path = next(path for path in arrays if path.endswith("weights"))
    with pytest.raises(CheckpointError, match=r"the checkpoint does not fit: .*weights"):
        make().load({**arrays, path: arrays[path][:, :2]}, 4, None)
    aside = {5: {"weights": np.zeros(3)}}
    with pytest.raises(CheckpointError, match="the checkpoint does not fit"):
        row.start(order(1, {2: (5, 1)}, resumed=((2, line_queued(5)),)), aside)


def test_a_narrower_row_holds_what_its_lanes_held(make, programs):
    row = make()
    run(row, FIRST)
    before = [leaves(row, lane) for lane in (3, 0)]
    row.narrow(programs[1, 2], (3, 0))
    assert [leaves(row, lane) for lane in range(2)] == before
    brought = run(row, order(2, {0: (6, 2), 1: (4, 2)}, finishing=(0, 1)))
    for index, trial in ((0, 6), (1, 4)):
        np.testing.assert_allclose(brought.values[index], line_by_hand(trial)[1][2:], rtol=1e-4)
        assert brought.tests[trial]["test_loss"] == pytest.approx(line_by_hand(trial)[2], rel=1e-4)
    assert len(row.save()["stream"]) == 2


def test_a_lane_that_is_not_there(make):
    with pytest.raises(IndexError):
        make(2, 1, width=2).lane(2)
