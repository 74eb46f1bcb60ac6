"""Widths by timing, with clocks that are made up: the fastest is found and remembered."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.engine.toys import dataset, line_trial

from jdl import sweep
from jdl.engine import tune
from jdl.engine.contract import trace_shapes
from jdl.engine.devices import lane_mesh
from jdl.engine.plan import Plan
from jdl.engine.program import compile_lanes
from jdl.engine.workload import make_workload, splits_of

NUMBERS = {"lr": np.float32(0.1)}
DATA = splits_of(dataset())


@pytest.fixture(scope="module")
def toy():
    work = make_workload(
        lambda numbers: line_trial(numbers["lr"]), dataset(), epochs=2, steps=None, batch_size=4,
        report_every=None, eval_batch_size=100, diverged_above=1e6,
    )  # fmt: skip
    return work, trace_shapes(work, NUMBERS)


@pytest.fixture
def clock(monkeypatch, tmp_path):
    """Sets how long a step takes by width; gives the widths that were timed."""
    monkeypatch.setenv("JDL_CACHE_DIR", str(tmp_path / "jdl"))
    timed = []

    def set_clock(seconds, room=None):
        def step_seconds(program, work, numbers, data):
            timed.append(program)
            return seconds(program)

        monkeypatch.setattr(tune, "compile_lanes", lambda w, n, mesh, lanes, unroll: lanes)
        monkeypatch.setattr(tune, "program_bytes", lambda lanes: 100 * lanes)
        monkeypatch.setattr(tune, "device_bytes", lambda mesh: room)
        monkeypatch.setattr(tune, "step_seconds", step_seconds)
        return timed

    return set_clock


@pytest.mark.parametrize(
    ("fastest", "start", "trials", "found", "tried"),
    [
        (64, 8, 10_000, 64, [4, 8, 16, 32, 64, 128]),
        (2, 8, 10_000, 2, [1, 2, 4, 8, 16]),
        (8, 8, 10_000, 8, [4, 8, 16]),
        (64, 8, 20, 20, [4, 8, 16]),  # no wider than there are trials
        (1, 1, 10_000, 1, [1, 2]),
    ],
)
def test_the_fastest_width_is_found(toy, clock, fastest, start, trials, found, tried):
    timed = clock(lambda lanes: 1e-6 * (1 + abs(np.log2(lanes / fastest))))
    plan = Plan(start, 1, 2, 1000, "reckoned")
    said = []
    chosen = tune.tuned(*toy, plan, trials, lane_mesh(1), NUMBERS, DATA, said.append)
    if trials > 1000:
        assert chosen.lanes == tune.even_width(found, trials, 1)
    assert sorted({*timed}) == tried and len(said) == len(tried)
    assert "timed" in chosen.reason and chosen.unroll == 2


@pytest.mark.parametrize(
    ("room", "found", "tried"), [(900, 8, [4, 8]), (250, 2, [1, 2]), (99, 32, [])]
)
def test_widths_that_do_not_fit_are_not_timed(toy, clock, room, found, tried):
    timed = clock(lambda lanes: 1e-6 / lanes, room)
    plan, said = Plan(32, 1, 1, 1000, "reckoned"), []
    chosen = tune.tuned(*toy, plan, 2**12, lane_mesh(1), NUMBERS, DATA, said.append)
    assert chosen.lanes == found and sorted({*timed}) == tried
    assert "32 lanes a device: too many to fit." in said


def test_what_was_timed_is_remembered_by_program(toy, clock, tmp_path):
    timed = clock(lambda lanes: 1e-6 / lanes if lanes < 16 else 1.0)
    plan = Plan(8, 1, 2, 1000, "reckoned")

    def again(shapes):
        return tune.tuned(toy[0], shapes, plan, 8000, lane_mesh(1), NUMBERS, DATA, print).lanes

    assert again(toy[1]) == 8 and len(timed) == 3 * tune.ROUNDS
    assert again(toy[1]) == 8 and len(timed) == 3 * tune.ROUNDS
    assert again(toy[1]._replace(program="another")) == 8 and len(timed) == 6 * tune.ROUNDS
    path = tmp_path / "jdl" / "widths.json"
    assert {known["lanes"] for known in json.loads(path.read_text()).values()} == {8}
    path.write_text("{damaged")
    assert again(toy[1]) == 8 and len(timed) == 9 * tune.ROUNDS


@pytest.mark.parametrize(
    "damage",
    [
        "[1]", "5", "null", "[", '{"KEY": {}}', '{"KEY": 5}',
        '{"KEY": {"lanes": 99, "most": 8, "seconds": {"8": 0.1}}}',
        '{"KEY": {"lanes": 0, "most": 8, "seconds": {"0": 0.1}}}',
        '{"KEY": {"lanes": "2", "most": 8, "seconds": {"2": 0.1}}}',
    ],
)  # fmt: skip
def test_what_is_damaged_is_timed_again(toy, clock, tmp_path, damage):
    timed = clock(lambda lanes: 1e-6 * (1 + abs(np.log2(lanes / 4))))
    path = tmp_path / "jdl" / "widths.json"
    path.parent.mkdir()
    work, shapes = toy
    path.write_text(damage.replace("KEY", tune._key(shapes, work, lane_mesh(1))))
    plan = Plan(4, 1, 1, 1000, "reckoned")
    assert tune.tuned(work, shapes, plan, 1000, lane_mesh(1), NUMBERS, DATA, print).lanes == 4
    assert timed and len(json.loads(path.read_text())) == 1


def test_with_more_trials_than_before_wider_lanes_are_tried(toy, clock):
    timed = clock(lambda lanes: 1e-6 / lanes if lanes < 64 else 1.0)

    def width(trials):
        plan = Plan(4, 1, 1, 1000, "reckoned")
        lanes = tune.tuned(*toy, plan, trials, lane_mesh(1), NUMBERS, DATA, print).lanes
        return lanes, len(timed)

    assert width(2)[0] == 2
    lanes, times = width(32 * 50)
    assert lanes == 32
    assert width(32 * 50) == width(32 * 100) == (32, times)
    assert width(2) == (2, times)


def test_widths_take_turns_because_the_machine_has_moods(toy, clock):
    slow = iter([True] * 3 + [False] * 1000)  # a neighbour at first
    clock(lambda lanes: (5e-6 if next(slow) else 1e-6) * (1 + abs(np.log2(lanes / 4))))
    chosen = tune.tuned(
        *toy, Plan(4, 1, 1, 1000, "reckoned"), 1000, lane_mesh(1), NUMBERS, DATA, print
    )
    assert chosen.lanes == 4 and "1 us a step" in chosen.reason


def test_the_time_of_a_step_is_that_of_one_lane(toy):
    program = compile_lanes(*toy, lane_mesh(1), 4, 1)
    seconds = tune.step_seconds(program, toy[0], NUMBERS, DATA)
    assert 1e-9 < seconds < 1e-2


def test_a_sweep_takes_the_width_that_was_timed(clock):
    clock(lambda lanes: 1 + abs(np.log2(lanes / 4)))
    results = sweep.run(
        lambda hp: line_trial(hp["lr"]), {"lr": sweep.log_uniform(0.01, 0.1)}, dataset(),
        trials=16, epochs=2, batch_size=4, devices=1, progress=False, lanes="tune",
    )  # fmt: skip
    (plan,) = results.plans.values()
    assert plan["lanes"] == 4 and "timed" in plan["reason"]
    with pytest.raises(ValueError, match=r"`lanes` must be a number, .tune. or None, got"):
        sweep.run(
            lambda hp: line_trial(hp["lr"]), {"lr": 0.1}, dataset(),
            epochs=2, batch_size=4, lanes="fast",
        )  # fmt: skip
