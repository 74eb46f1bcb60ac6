"""Learning curves of all trials of a sweep, how each ended, and the best of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from jdl.plot.columns import counts, final_values, goodness, nothing
from jdl.plot.scale import limit, say_beyond, scale_y
from jdl.plot.style import DIVERGED, DONE, FAINT, INK, STOPPED, new_figure, styled
from jdl.sweep.points import words

BEST = 5  # curves that are drawn strong


def learning_curves_figure(results: Any, metric: str | None = None) -> Any:
    """Draws a metric of every trial against the training step.

    A trial that was stopped early ends in a triangle, one that diverged in a
    cross at its last finite report; those that run to the end are plain, and
    the best five strong.

    Args:
      results: of a sweep, finished or running.
      metric: any that is reported; what trials are judged by, if not given.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: nothing of that name is reported.
    """
    metric = metric or results.metric
    curves, steps = results.curves(metric), results.steps
    with styled():
        return _draw(results, metric, curves, steps)


def _draw(results: Any, metric: str, curves: np.ndarray, steps: np.ndarray) -> Any:
    from matplotlib.collections import LineCollection

    figure = new_figure(8.0, 4.6)
    axes = figure.add_subplot()
    axes.set_xlabel("training step")
    axes.set_ylabel(words(metric))
    axes.set_title(f"Learning curves: {counts(results)}")
    axes.set_xlim(0, steps[-1] * 1.02)
    seen = np.isfinite(curves).any(axis=1)
    if not seen.any():
        nothing(axes, "no trial has reported a finite value")
        return figure
    faint = float(np.clip(12 / max(1, seen.sum()), 0.14, 0.6))
    status = np.array([trial.status for trial in results.trials])
    looks = {"done": DONE, "stopped": STOPPED, "diverged": DIVERGED, "running": FAINT}
    handles = []
    single = len(steps) == 1
    for name, color in looks.items():
        rows = np.flatnonzero(seen & (status == name))
        if not rows.size:
            continue
        alpha = faint if name != "stopped" else min(1.0, 2 * faint)
        lines = [np.column_stack([steps, curves[row]]) for row in rows]
        lines = [line[np.isfinite(line[:, 1])] for line in lines]
        axes.add_collection(LineCollection(lines, colors=color, alpha=alpha, linewidths=1.0))
        ends = np.array([line[-1] for line in lines])
        mark = {"stopped": "v", "diverged": "x"}.get(name, "o" if single else "")
        if mark:
            axes.plot(*ends.T, mark, color=color, markersize=4, alpha=max(0.35, alpha), zorder=3)
        label = {"done": "ran to the end"}.get(name, results.says(name))
        handles += axes.plot([], [], marker=mark, color=color, label=f"{label} ({rows.size:,})")
    if unseen := int((~seen).sum()):
        handles += axes.plot([], [], linestyle="", label=f"no finite report ({unseen:,})")
    good = goodness(results, metric) if results.trials else np.array([])
    ran = np.flatnonzero(np.isfinite(good) & (status == "done"))
    best = ran[np.argsort(-good[ran], kind="stable")][:BEST]
    for row in best:
        axes.plot(steps, curves[row], "o" if single else "-", color=INK, linewidth=1.7, zorder=4)
    if best.size:
        word = f"the best {best.size}" if best.size > 1 else "the best"
        handles += axes.plot([], [], color=INK, linewidth=1.7, label=word)
    values = curves[np.isfinite(curves)]
    higher = results.larger_is_better(metric)
    inside = limit(values, final_values(results, metric), higher)
    scale = scale_y(axes, metric, inside, higher)
    axes.set_ylabel(words(metric) + scale)
    with np.errstate(all="ignore"):
        finite = np.where(np.isfinite(curves[seen]), curves[seen], np.nan)
        worst = np.nanmin(finite, axis=1) if higher else np.nanmax(finite, axis=1)
    say_beyond(axes, worst, higher, "curve")
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
