"""The devices of a run: which are chosen, how many there are, and their cache."""

from __future__ import annotations

import types

import jax
import pytest

from jdl.engine import devices
from jdl.engine.devices import lane_mesh


def test_the_devices_that_are_chosen():
    local = jax.local_devices()
    assert list(lane_mesh().devices) == local and lane_mesh().axis_names == ("lanes",)
    assert list(lane_mesh(3).devices) == local[:3]
    assert list(lane_mesh([local[2], local[0]]).devices) == [local[2], local[0]]
    assert lane_mesh(len(local)).size == len(local) and lane_mesh(1).size == 1
    with pytest.raises(ValueError, match=r"`devices` must be an integer of at least 0, got .*-1"):
        lane_mesh(-1)
    for wrong in (0, len(local) + 1):
        with pytest.raises(ValueError, match=f"from 1 to {len(local)}, the local .* got {wrong}"):
            lane_mesh(wrong)
    with pytest.raises(ValueError, match="needs at least one device, got none"):
        lane_mesh([])


def test_every_core_is_a_device_unless_somebody_said_otherwise(monkeypatch):
    set_to = []
    monkeypatch.setattr(devices.jax.config, "update", lambda *pair: set_to.append(pair))
    devices.use_all_cores()
    assert set_to == []  # the tests have said: eight
    monkeypatch.setattr(devices, "jax", types.SimpleNamespace(
        config=types.SimpleNamespace(jax_num_cpu_devices=-1, update=lambda *p: set_to.append(p))
    ))  # fmt: skip
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda process: {3, 5, 6}, raising=False)
    devices.use_all_cores()
    assert set_to == [("jax_num_cpu_devices", 3)]
    monkeypatch.delattr(devices.os, "sched_getaffinity")
    for cores, expected in ((7, 7), (None, 1)):
        monkeypatch.setattr(devices.os, "cpu_count", lambda cores=cores: cores)
        assert devices.usable_cores() == expected


def test_the_size_of_the_cache(monkeypatch):
    texts = iter(["512K\n", "", "2M"])
    monkeypatch.setattr(devices.pathlib.Path, "read_text", lambda self: next(texts))
    assert devices.cache_bytes() == 512 * 1024
    assert devices.cache_bytes() == devices.cache_bytes() == 2**20
