"""What fits a device: accounts of real programs, and widths narrowed to it."""

from __future__ import annotations

from types import SimpleNamespace
from unittest import mock

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from tests.engine.toys import dataset, line_trial

from jdl import sweep
from jdl.engine import memory
from jdl.engine.contract import trace_shapes
from jdl.engine.devices import lane_mesh
from jdl.engine.program import LaneProgram, compile_lanes
from jdl.engine.row import Row
from jdl.engine.starting import Refill
from jdl.engine.workload import make_workload


def sizes(argument, output=0, alias=0, temp=0, code=0):
    return SimpleNamespace(
        argument_size_in_bytes=argument,
        output_size_in_bytes=output,
        alias_size_in_bytes=alias,
        temp_size_in_bytes=temp,
        generated_code_size_in_bytes=code,
    )


def account(*segment, drawing=None):
    """A program of which nothing but the compiler's account is known."""
    refill = Refill(print, print, None, drawing)
    return LaneProgram(print, refill, None, 0, None, None, 0.0, False, sizes(*segment))


def test_donated_bytes_count_once():
    assert memory.program_bytes(account(100, 70, 60, 1000, 3)) == 1113
    assert memory.program_bytes(account(1)._replace(memory=None)) == 0


def test_what_is_drawn_lies_beside_the_lanes_before_a_segment_runs():
    for drawn, temporary, expected in ((30, 3, 133), (10, 2, 113)):
        drawing = sizes(7, drawn, temp=temporary)
        assert memory.program_bytes(account(100, 70, 60, 3, drawing=drawing)) == expected


def test_the_account_of_a_program_holds_its_lanes_and_its_data():
    work = make_workload(
        lambda numbers: line_trial(numbers["lr"]), dataset(), epochs=2, steps=None, batch_size=4,
        report_every=None, eval_batch_size=100, diverged_above=1e6,
    )  # fmt: skip
    shapes = trace_shapes(work, {"lr": np.float32(0.1)})
    programs = [compile_lanes(work, shapes, lane_mesh(1), lanes, 1) for lanes in (100, 200)]
    bytes_of = [memory.program_bytes(program) for program in programs]
    lane = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(programs[0].shapes.lane))
    data = sum(a.nbytes for split in dataset() for a in split)
    assert bytes_of[0] > 100 * lane + data
    assert 100 * lane < bytes_of[1] - bytes_of[0] <= bytes_of[0] - data


@pytest.mark.parametrize(
    ("wanted", "each", "room", "tried"),
    [
        (8, 10, 100, [8]),
        (8, 10, 79, [8, 7]),
        (64, 10, 100, [64, 10]),
        (3, 50, 60, [3, 1]),
        (8, 2**57 + 1, 2**60, [8, 7]),  # by a share that rounds to all of it
    ],
)
def test_widths_are_narrowed_in_proportion(monkeypatch, wanted, each, room, tried):
    monkeypatch.setattr(memory, "device_bytes", lambda mesh: room)
    built, said = [], []

    def build(lanes):
        built.append(lanes)
        return account(each * lanes)

    memory.widest_that_fits(build, wanted, lane_mesh(1), said.append)
    assert built == tried
    assert len(said) == len(tried) - 1
    assert all(f"Narrowed to {lanes} lanes" in words for lanes, words in zip(tried[1:], said))


def test_a_lane_that_does_not_fit_is_refused_with_the_figures(monkeypatch):
    monkeypatch.setattr(memory, "device_bytes", lambda mesh: 3 * 2**20)
    with pytest.raises(MemoryError, match=r"One lane needs 5 MiB, but only 3 MiB is .* batch_size"):
        memory.widest_that_fits(lambda lanes: account(5 * 2**20), 1, lane_mesh(1), print)


def test_out_of_memory_while_compiling_halves_the_width(monkeypatch):
    monkeypatch.setattr(memory, "device_bytes", lambda mesh: None)
    built = []

    def build(lanes):
        built.append(lanes)
        if lanes > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return account(1)

    memory.widest_that_fits(build, 11, lane_mesh(1), lambda words: None)
    assert built == [11, 5, 2]

    def fails(lanes):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        memory.widest_that_fits(fails, 4, lane_mesh(1), print)


def small_sweep(**arguments):
    space = {"lr": sweep.log_uniform(0.01, 0.1)}
    return sweep.run(
        lambda hp: line_trial(hp["lr"]), space, dataset(), trials=12, epochs=2, batch_size=4,
        devices=1, progress=False, **arguments,
    )  # fmt: skip


def test_out_of_memory_while_running_halves_the_width_and_goes_on(monkeypatch):
    widths, run = [], Row._run

    def crowded(self, *arguments):
        widths.append(self._program.width)
        if widths[-1] > 3:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while allocating")
        return run(self, *arguments)

    whole = small_sweep(lanes=12)
    monkeypatch.setattr(Row, "_run", crowded)
    narrowed = small_sweep(lanes=12)
    assert widths[:3] == [12, 6, 3] and set(widths[3:]) == {3}
    assert narrowed.count("done") == 12
    for one, other in zip(whole.trials, narrowed.trials, strict=True):
        assert one.metrics["valid_loss"] == pytest.approx(other.metrics["valid_loss"], rel=1e-5)


def device(platform, stats=None):
    return SimpleNamespace(platform=platform, memory_stats=lambda: stats)


@pytest.mark.parametrize(
    ("platform", "stats", "expected"),
    [
        ("cpu", None, 300),  # nine tenths of 1000 bytes, shared by three devices
        ("gpu", {"bytes_limit": 1000}, 900),
        ("gpu", {"other": 5}, None),
        ("gpu", None, None),
    ],
)
def test_what_programs_may_take_of_a_device(monkeypatch, platform, stats, expected):
    monkeypatch.setattr(memory, "_available", lambda: 1000)
    mesh = mock.Mock(spec=Mesh, devices=np.array([device(platform, stats)] * 3), size=3)
    assert memory.device_bytes(mesh) == expected


def test_a_machine_that_does_not_say_what_is_available(monkeypatch):
    monkeypatch.setattr(memory, "_available", lambda: None)
    mesh = mock.Mock(spec=Mesh, devices=np.array([device("cpu")]), size=1)
    assert memory.device_bytes(mesh) is None


def test_what_the_system_says_is_available(monkeypatch):
    text = "MemTotal:  900 kB\nMemAvailable:   123 kB\nMemFree: 7 kB\n"
    monkeypatch.setattr(memory.pathlib.Path, "read_text", lambda self: text)
    assert memory._available() == 123 * 1024
    monkeypatch.setattr(memory.pathlib.Path, "read_text", lambda self: "MemFree: 7 kB\n")
    known = {"SC_AVPHYS_PAGES": 11, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(memory.os, "sysconf", known.__getitem__)
    assert memory._available() == 11 * 4096

    def missing(*_):
        raise OSError("no such file")

    monkeypatch.setattr(memory.pathlib.Path, "read_text", missing)
    assert memory._available() == 11 * 4096
    monkeypatch.setattr(memory.os, "sysconf", missing)
    assert memory._available() is None


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1024**2 - 1, "1024 KiB"),
        (1024**2, "1 MiB"), (5.4 * 1024**2, "5 MiB"), (1024**3, "1.0 GiB"),
        (2.26 * 1024**3, "2.3 GiB"),
    ],
)  # fmt: skip
def test_bytes_in_words(count, said):
    assert memory.readable(count) == said


def test_running_out_while_compiling_one_lane_is_an_error(monkeypatch):
    monkeypatch.setattr(memory, "device_bytes", lambda mesh: None)
    said = []

    def build(lanes):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        memory.widest_that_fits(build, 5, lane_mesh(1), said.append)
    assert said == [
        f"Narrowed to {lanes} lanes a device: compiling ran out of memory." for lanes in (2, 1)
    ]
