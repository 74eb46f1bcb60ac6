"""What every benchmark shares: timing in turns, ratios, recorded results.

`seconds` and `machine` are those of `jdl bench`.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
from collections.abc import Callable
from typing import Any

from jdl.bench.machine import machine
from jdl.bench.timing import seconds

__all__ = ["RESULTS", "interleaved", "machine", "median_ratio", "record", "seconds"]

os.environ["JDL_CACHE_DIR"] = ""  # programs are compiled, not found from an earlier bench
RESULTS = pathlib.Path(__file__).parent / "results"


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


def record(name: str, result: dict[str, Any]) -> pathlib.Path:
    """Writes `result` to results/`name`.json and returns the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
