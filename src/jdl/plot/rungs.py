"""Rungs and promotions: how many trials came how far, and what they were worth when judged."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jdl.plot.columns import counts, has_status, jitter, nothing
from jdl.plot.scale import limit, say_beyond, scale_y
from jdl.plot.style import DONE, FAINT, INK, STOPPED, new_figure, styled
from jdl.sweep.points import words


class Rung(NamedTuple):
    """One report after which trials were stopped.

    Attributes:
      step: the training step.
      trials: the rows of those that came here with a finite value.
      values: of the metric, of those.
      stopped: whether each went no further.
    """

    step: int
    trials: np.ndarray
    values: np.ndarray
    stopped: np.ndarray


def rungs_of(results: Any, metric: str) -> list[Rung]:
    """The reports after which at least one trial was stopped, from the curves and statuses."""
    curves = results.curves(metric)
    every = results.specification["report_every"]
    finite = np.isfinite(curves)
    stopped = has_status(results, "stopped")
    last = np.array([trial.steps // every for trial in results.trials], int)
    found = []
    for report in np.unique(last[stopped]):
        if report < 1:
            continue
        here = np.flatnonzero(finite[:, report - 1])
        ends = stopped[here] & (last[here] == report)
        step = int(results.steps[report - 1])
        found.append(Rung(step, here, curves[here, report - 1], ends))
    return found


def rungs_figure(results: Any, metric: str | None = None) -> Any:
    """Draws how many trials reached each step, and at each rung who was stopped and who went on.

    Args:
      results: of a sweep, finished or running.
      metric: any that is reported; what trials are judged by, if not given.

    Returns:
      The matplotlib figure.
    """
    metric = metric or results.metric
    with styled():
        return _draw(results, metric)


def _draw(results: Any, metric: str) -> Any:
    rungs = rungs_of(results, metric)
    figure = new_figure(8.0, 6.0)
    above, below = figure.subplots(2, 1, height_ratios=[1, 1.5])
    steps = results.steps
    reached = np.isfinite(results.curves(metric)).sum(axis=0)
    above.set_title(f"Rungs and promotions: {counts(results)}")
    above.step(np.concatenate([[0], steps]), [len(results.trials), *reached], "-", color=DONE)
    above.set_ylabel("trials that\ncame so far")
    above.set_xlabel("training step")
    above.set_ylim(0, 1.18 * max(1, len(results.trials)))
    above.set_xlim(0, steps[-1] * 1.03)
    steps_done = sum(trial.steps for trial in results.trials)
    whole = len(results.trials) * int(steps[-1])
    if whole:
        share = f"{100 * steps_done / whole:.0f} % of the steps that running all fully would take"
        above.text(0.99, 0.94, share, transform=above.transAxes, ha="right", va="top", fontsize=9)
    below.set_ylabel(words(metric))
    if not rungs:
        below.set_xticks([])
        below.set_yticks([])
        nothing(below, "no trial was stopped early")
        return figure
    every = np.concatenate([r.values for r in rungs])
    higher = results.larger_is_better(metric)
    inside = limit(every, every, higher)
    below.set_ylabel(words(metric) + scale_y(below, metric, inside, higher))
    low, high = below.get_ylim()
    step = max(1, len(rungs) // 10)
    for place, rung in enumerate(rungs):
        x = place + jitter(len(rung.values), 0.3)
        y = np.clip(rung.values, low, high)
        size = float(np.clip(80 / np.sqrt(len(y)), 2.2, 5))
        looks = ((rung.stopped, "v", STOPPED, "stopped"), (~rung.stopped, "o", DONE, "went on"))
        for rows, mark, color, label in looks:
            below.plot(
                x[rows],
                y[rows],
                mark,
                color=color,
                markersize=size,
                alpha=float(np.clip(200 / len(y), 0.3, 0.9)),
                markeredgewidth=0,
                label=label if place == 0 else None,
            )
        ends = int(rung.stopped.sum())
        text = f"{len(y) - ends:,} of {len(y):,}\nwent on"
        above.axvline(rung.step, color=FAINT, linestyle=(0, (2, 2)), linewidth=0.9)
        if place % step == 0:
            where = below.get_xaxis_transform()
            below.text(place, 1.02, text, transform=where, ha="center", fontsize=8.5)
    below.set_ylim(low, high)
    say_beyond(below, every, higher, "score")
    below.set_xlim(-0.6, len(rungs) - 0.4)
    shown = range(0, len(rungs), step)
    below.set_xticks(list(shown), [f"{rungs[i].step:,}" for i in shown])
    below.set_xlabel("rung, at training step")
    below.grid(axis="x", visible=False)
    handles, labels = below.get_legend_handles_labels()
    for handle in handles:
        handle.set_markersize(5)
        handle.set_alpha(1)
    below.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK)
    return figure
