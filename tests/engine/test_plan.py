"""The planner: widths that fill their rounds, reasons in words, what is refused."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from jax.sharding import Mesh
from tests.engine.toys import dataset, line_trial

from jdl import tree
from jdl.engine import plan
from jdl.engine.contract import trace_shapes
from jdl.engine.devices import lane_mesh
from jdl.engine.plan import even_width, lane_bytes, make_plan
from jdl.engine.workload import make_workload


@pytest.fixture(scope="module")
def toy():
    work = make_workload(
        lambda numbers: line_trial(numbers["lr"]),
        dataset(),
        epochs=2,
        steps=None,
        batch_size=4,
        report_every=None,
        eval_batch_size=100,
        diverged_above=1e6,
    )
    return work, trace_shapes(work, {"lr": np.float32(0.1)})


@pytest.mark.parametrize(
    "trials,devices,lanes",
    # 32 lanes at most: 33 trials take two rounds of 17, 200 on two devices four of 25.
    [(1, 1, 1), (20, 1, 20), (32, 1, 32), (33, 1, 17), (200, 2, 25), (1000, 2, 32), (3, 8, 1)],
)
def test_rounds_are_full(toy, trials, devices, lanes):
    assert make_plan(*toy, trials, lane_mesh(devices)).lanes == lanes


def test_the_width_keeps_lanes_in_the_cache(toy, monkeypatch):
    work, shapes = toy
    each = lane_bytes(work, shapes)
    monkeypatch.setattr(plan, "cache_bytes", lambda: 5 * each)
    chosen = make_plan(work, shapes, 10_000, lane_mesh(1))
    assert chosen.lanes == 10 and chosen.lane_bytes == each
    assert "lanes on each of 1 devices" in chosen.reason and "cache" in chosen.reason


def test_lane_bytes_by_hand(toy):
    # Weights and start 3 each, ten batches of 4 x 3 and 4, ten masks of 2, a step.
    state = 4 * (3 + 3 + 10 * 12 + 10 * 4 + 10 * 2 + 1)
    batch = 4 * (12 + 4)
    # A prediction for each of 4 examples, and a gradient of 3 weights.
    assert toy[1].written == 4 * (4 + 3)
    assert lane_bytes(*toy) == state + batch + 3 * 28 // 2


def test_the_given_width_is_taken(toy):
    assert make_plan(*toy, 5, lane_mesh(1), lanes=3).lanes == 3
    with pytest.raises(ValueError, match=r"`lanes` must be an integer of at least 1, got lanes=0"):
        make_plan(*toy, 5, lane_mesh(1), lanes=0)


def accelerator(limit):
    """The mesh of three devices that say to have so much memory; None where they do not say."""

    class Device:
        platform, device_kind = "gpu", "card"

        def memory_stats(self):
            return limit and {"bytes_limit": limit}

    devices = np.array([Device() for _ in range(3)])
    return mock.Mock(spec=Mesh, devices=devices, size=3)


def test_an_accelerator_takes_what_half_its_memory_holds(toy, monkeypatch):
    work, shapes = toy
    each, data = lane_bytes(work, shapes), tree.nbytes(work.splits)
    mesh = accelerator(2 * (data + 7 * each + 3) + 1)
    chosen = make_plan(work, shapes, 10_000, mesh)
    assert chosen[:4] == (7, 3, 1, each)
    assert chosen.reason == (
        f"7 lanes on each of 3 devices: {plan.readable(each)} a lane, "
        f"{plan.readable(7 * each + 3)} of memory for lanes"
    )
    # 16 GiB where nothing is said, and never more than 4096 lanes.
    assert make_plan(work, shapes, 10**6, accelerator(None)).lanes == even_width(4096, 10**6, 3)
    wide = shapes._replace(lane=shapes.lane._replace(state=np.zeros(10**7, np.float32)))
    at_least = lane_bytes(work, wide)
    most = (8 * 2**30 - data) // at_least
    assert make_plan(work, wide, 10**6, accelerator(None)).lanes == even_width(most, 10**6, 3)
    with pytest.raises(ValueError, match=r"Not even one lane fits card: .* a lane, 0 B of memory"):
        make_plan(work, shapes, 9, accelerator(2 * data - 2))
    assert make_plan(work, shapes, 9, accelerator(2 * (data + each))).lanes == 1


def test_a_lane_of_large_state_has_a_neighbour_and_one_of_large_activations_has_none(
    toy, monkeypatch
):
    work, shapes = toy
    state = {"params": np.zeros(10**4, np.float32), "moments": np.zeros(10**4, np.float32)}
    shapes = shapes._replace(lane=shapes.lane._replace(state=state))
    monkeypatch.setattr(plan, "cache_bytes", lambda: 5000)
    for activations, lanes in ((5000, 2), (5001, 1)):
        more = shapes._replace(written=40_000 + activations)
        assert make_plan(work, more, 100, lane_mesh(1)).lanes == lanes
    monkeypatch.setattr(plan, "cache_bytes", lambda: 1000 * lane_bytes(work, shapes))
    assert make_plan(work, shapes, 10**5, lane_mesh(1)).lanes == even_width(32, 10**5, 1)


@pytest.mark.parametrize(
    ("most", "trials", "devices", "width"),
    [(10, 10, 1, 10), (10, 11, 1, 6), (7, 50, 2, 7), (7, 29, 2, 5), (4, 1, 8, 1)],
)
def test_no_wider_than_fills_each_round(most, trials, devices, width):
    assert even_width(most, trials, devices) == width


@pytest.mark.parametrize("lanes", [0, -2, True, 2.0, "3"])
def test_widths_that_are_refused(toy, lanes):
    message = "`lanes` must be (an integer of at least 1|a number, 'tune' or None), got lanes="
    with pytest.raises((TypeError, ValueError), match=message):
        make_plan(*toy, 5, lane_mesh(1), lanes=lanes)
    assert make_plan(*toy, 5, lane_mesh(1), lanes=1).reason == "1 lanes a device, as given"


def test_steps_are_unrolled_where_that_pays(toy):
    """Small lanes, an even number of steps to a report, and 2.8 million steps of 5 us in all."""
    work, shapes = toy
    work = work._replace(report_every=100, reports=10)
    assert lane_bytes(work, shapes) < 2**16
    for trials, unroll in ((2801, 2), (2799, 1), (3, 1), (10**6, 2)):
        assert make_plan(work, shapes, trials, lane_mesh(1)).unroll == unroll
    odd = work._replace(report_every=101)
    assert make_plan(odd, shapes, 10**6, lane_mesh(1)).unroll == 1
    # A lane touches its state, its batch and 1.5 times what products write: 2**20 exactly.
    rest = tree.nbytes(work.batch) + 3 * shapes.written // 2
    for more, unroll in ((0, 2), (2, 1)):
        state = np.zeros((2**20 - rest) // 4 + more, np.float32)
        big = shapes._replace(lane=shapes.lane._replace(state=state))
        assert make_plan(work, big, 10**6, lane_mesh(1)).unroll == unroll
        assert make_plan(work, big, 10**6, lane_mesh(2), lanes=5)[:3] == (5, 2, unroll)
    # A lane of 1 MiB takes 16 times as long as one of 64 KiB.
    state = np.zeros((2**20 - rest) // 4, np.float32)
    big = shapes._replace(lane=shapes.lane._replace(state=state))
    assert [make_plan(work, big, n, lane_mesh(1)).unroll for n in (174, 176)] == [1, 2]
