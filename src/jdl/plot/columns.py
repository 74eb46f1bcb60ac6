"""A sweep's trials as columns: each hyperparameter on an axis from 0 to 1, and the final metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jdl.sweep.dimension import REPEATS
from jdl.sweep.points import is_log, is_number, words
from jdl.sweep.results import format_value
from jdl.sweep.space import from_json

FEW = 12  # options of a choice, up to which numbers are spaced evenly, as names are
NAMES = {"lr": "learning rate", "l2": "strength of the L2 penalty"}


class Column(NamedTuple):
    """One hyperparameter of every trial, as positions on an axis.

    Attributes:
      name: the hyperparameter's.
      label: what an axis says.
      at: (trials,) from 0 to 1; NaN where a conditional one does not exist.
      ticks: position and text of each tick.
      log: whether the axis is logarithmic.
      names: whether the values are names, or a few numbers, spaced evenly.
      low: the value at 0; NaN for names.
      high: the value at 1; NaN for names.
    """

    name: str
    label: str
    at: np.ndarray
    ticks: list[tuple[float, str]]
    log: bool
    names: bool
    low: float
    high: float

    def value(self, at: Any) -> Any:
        """The number at a position."""
        if self.log:
            return self.low * (self.high / self.low) ** np.asarray(at)
        return self.low + (self.high - self.low) * np.asarray(at)


def column(results: Any, name: str) -> Column:
    """The hyperparameter `name` of every trial; also where it is absent or the same everywhere."""
    values = [trial.config.get(name) for trial in results.trials]
    there = [trial.config[name] for trial in results.trials if name in trial.config]
    log = bool(there) and is_log(results.specification["space"].get(name, {}), there)
    label = NAMES.get(name, name) + (" (log scale)" if log else "")
    present = np.array([name in trial.config for trial in results.trials], bool)
    at = np.full(len(values), np.nan)
    points = _points(results, name)
    chosen = "choice" in results.specification["space"].get(name, {}) and len(points) <= FEW
    if chosen or not (there and is_number(there)):
        log = False
        label = NAMES.get(name, name)
        rank = {repr(point): i for i, point in enumerate(points)}
        options = sorted({repr(v): v for v in there}.items(), key=lambda o: rank.get(o[0], -1))
        places = np.linspace(0, 1, len(options)) if len(options) > 1 else [0.5]
        place = {written: at for (written, _), at in zip(options, places)}
        at[present] = [place[repr(value)] for value in there]
        ticks = [(float(place[written]), format_value(option)) for written, option in options]
        return Column(name, label, at, ticks, False, True, math.nan, math.nan)
    numbers = np.array(there, float)
    low, high = float(numbers.min()), float(numbers.max())
    if low == high:
        at[present] = 0.5
        return Column(name, label, at, [(0.5, f"{low:.4g}")], log, False, low, high)
    span = (np.log(numbers / low) / math.log(high / low)) if log else (numbers - low) / (high - low)
    at[present] = np.clip(span, 0, 1)
    ticks = _log_ticks(low, high) if log else _ticks(low, high)
    return Column(name, label, at, ticks, log, False, low, high)


def _points(results: Any, name: str) -> list[Any]:
    """The values of `name` in order: as given, or ascending where they are numbers."""
    points = list(from_json(results.specification["space"])[name].points or ())
    return sorted(points) if is_number(points) else points


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    step = max(1, math.ceil((last - first) / 6))
    numbers = [10.0**k for k in range(first, last + 1, step)]
    if len(numbers) < 2:
        numbers = [low, math.sqrt(low * high), high]
    return [(math.log(x / low) / math.log(high / low), f"{x:.2g}") for x in numbers]


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    rough = (high - low) / 4
    unit = 10 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= rough * 0.999)
    numbers = np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step
    return [((x - low) / (high - low), f"{x + 0.0:.4g}") for x in numbers]


def varying_names(results: Any, most: int | None = None) -> list[str]:
    """The hyperparameters, seeds and folds aside, that differ between trials."""
    names = []
    for name, entry in results.specification["space"].items():
        if set(entry) & set(REPEATS):
            continue
        seen = {repr(trial.config.get(name, _ABSENT)) for trial in results.trials}
        if len(seen) > 1:
            names.append(name)
    return names[:most]


_ABSENT = object()


def final_values(results: Any, metric: str) -> np.ndarray:
    """(trials,) the last value of `metric` of each trial; NaN if it diverged or never reported."""
    return np.array(
        [
            math.nan if trial.status == "diverged" else trial.metrics.get(metric, math.nan)
            for trial in results.trials
        ],
        float,
    )


def has_status(results: Any, *statuses: str) -> np.ndarray:
    """(trials,) whether each trial's status is one of `statuses`."""
    return np.array([trial.status in statuses for trial in results.trials], bool)


def goodness(results: Any, metric: str) -> np.ndarray:
    """(trials,) the rank of each trial's final metric from 0 (worst) to 1 (best), NaN without one.

    Colours follow ranks, because a few hopeless trials would take up a scale of values.
    """
    values = final_values(results, metric)
    good = np.full(values.shape, np.nan)
    finite = np.isfinite(values)
    if not finite.any():
        return good
    signed = values[finite] if results.larger_is_better(metric) else -values[finite]
    _, place, counts = np.unique(signed, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle = ends - (counts + 1) / 2
    good[finite] = middle[place] / max(1, len(signed) - 1)
    return good


def say(metric: str) -> str:
    """The label of an axis of final values."""
    return f"final {words(metric)}"


def jitter(count: int, width: float) -> np.ndarray:
    """`count` offsets within `width` either way, always the same, that keep neighbours apart."""
    return ((np.arange(count) * 0.6180339887) % 1.0 - 0.5) * 2 * width


def nothing(axes: Any, text: str) -> None:
    """Says in the middle of an empty picture why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#6a6a6a")


def counts(results: Any, statuses: Sequence[str] = ("diverged", "stopped")) -> str:
    """How many trials there are, and how many ended early: the start of a title."""
    total = len(results.trials)
    parts = [f"{total:,} trial{'s' * (total != 1)}"]
    parts += [f"{n:,} {status}" for status in statuses if (n := results.count(status))]
    left = results.count("running") + results.count("pending")
    return ", ".join(parts + ([f"{left:,} to come"] if left else []))
