"""The planner: widths that fill their rounds, reasons in words, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from tests.engine.toys import dataset, line_trial

from jdl.engine import plan
from jdl.engine.contract import trace_shapes
from jdl.engine.plan import lane_bytes, lane_mesh, make_plan
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
    assert lane_bytes(*toy) == state + state // 2 + 4 * batch


def test_the_given_width_is_taken(toy):
    assert make_plan(*toy, 5, lane_mesh(1), lanes=3).lanes == 3
    with pytest.raises(ValueError, match=r"`lanes` must be an integer of at least 1, got lanes=0"):
        make_plan(*toy, 5, lane_mesh(1), lanes=0)
