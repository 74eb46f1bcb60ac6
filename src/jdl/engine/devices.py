"""The devices that lanes run on, and what is known of them."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jdl._checks import check_count


def use_all_cores() -> None:
    """Gives JAX one CPU device per core, if its backend has not started yet.

    Has no effect if the user has set the number, here or in XLA_FLAGS, or JAX is already running.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    if jax.config.jax_num_cpu_devices == -1:  # type: ignore[attr-defined]
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", usable_cores())


def check_compiles() -> None:
    """Raises RuntimeError where JAX is told to compile nothing."""
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        raise RuntimeError(
            "jax_disable_jit (JAX_DISABLE_JIT) is on, but all training here is compiled. Turn it "
            "off; to look at a trial step by step, call its `init` and `step` themselves."
        )


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def lane_mesh(devices: int | Sequence[Any] | None = None) -> Mesh:
    """A mesh of one axis, "lanes", over the local devices.

    Args:
      devices: how many of them, or which; None for all.

    Raises:
      ValueError: there are fewer than asked for.
    """
    local = jax.local_devices()
    if devices is None:
        chosen = local
    elif not isinstance(devices, Sequence):
        devices = check_count("devices", devices, 0)
        if not 1 <= devices <= len(local):
            raise ValueError(
                f"`devices` must be from 1 to {len(local)}, the local devices, got {devices}. On a "
                "CPU, jax.config.update('jax_num_cpu_devices', n) before JAX starts makes n."
            )
        chosen = local[:devices]
    else:
        chosen = list(devices)
        if not chosen:
            raise ValueError("`devices` needs at least one device, got none.")
    return Mesh(np.array(chosen), ("lanes",))


def cache_bytes() -> int:
    """The size of a core's second-level cache, 1 MiB where it cannot be read."""
    try:
        text = pathlib.Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
        return int(text.rstrip("K")) * 1024
    except (OSError, ValueError):
        return 2**20
