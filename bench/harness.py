"""What every benchmark shares: timing that blocks, the machine's description, recorded results."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

os.environ["JDL_CACHE_DIR"] = ""  # programs are compiled, not found from an earlier bench
RESULTS = pathlib.Path(__file__).parent / "results"


def seconds(run: Callable[[], Any], repeats: int = 5, warmup: int = 1) -> list[float]:
    """Wall seconds of each of `repeats` calls, after `warmup` that are not counted."""
    for _ in range(warmup):
        jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return times


def interleaved(
    runs: dict[str, Callable[[], Any]], repeats: int = 5, warmup: int = 1
) -> dict[str, list[float]]:
    """As `seconds`, for several things in turn (a b c a b c ...), so that drift hits all alike."""
    for run in runs.values():
        seconds(run, repeats=0, warmup=warmup)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name] += seconds(run, repeats=1, warmup=0)
    return times


def median_ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Minimum, median and maximum of ours / theirs, taken pair by pair."""
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return ratios[0], statistics.median(ratios), ratios[-1]


def machine(*packages: str) -> dict[str, Any]:
    """The device, the processor, the date and the versions that a result depends on."""
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            cpu = next((x.split(":")[1].strip() for x in file if x.startswith("model name")), cpu)
    names = ("jax", "jaxlib", "numpy", *packages)
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "date": time.strftime("%Y-%m-%d"),
    }


def record(name: str, result: dict[str, Any]) -> pathlib.Path:
    """Writes `result` to results/`name`.json and returns the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
