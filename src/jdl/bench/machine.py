"""What a measurement depends on besides the program: the machine and the versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

import jax

from jdl.engine.devices import usable_cores


def machine(*packages: str) -> dict[str, Any]:
    """The devices, the processor, the date, and the versions of jdl, JAX, NumPy and `packages`.

    `cores` counts those of the machine, `usable_cores` those that this process may use.
    `device_memory` is in bytes, None where the device does not tell it.
    """
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    names = ("jdl", "jax", "jaxlib", "numpy", *packages)
    return {
        "platform": device.platform,
        "platform_version": device.client.platform_version,
        "device": device.device_kind,
        "devices": jax.local_device_count(),
        "device_memory": stats.get("bytes_limit"),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
