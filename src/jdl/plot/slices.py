"""Slices: the final metric of every trial against each hyperparameter, a panel for each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jdl.plot.columns import (
    Column,
    column,
    counts,
    final_values,
    has_status,
    jitter,
    nothing,
    say,
    varying_names,
)
from jdl.plot.scale import beyond, limit, scale_y
from jdl.plot.style import DIVERGED, DONE, FAINT, INK, STOPPED, new_figure, styled

MOST = 12  # panels
BINS = 8


def slice_figure(results: Any, metric: str | None = None) -> Any:
    """Draws the final metric against each hyperparameter that varies, a panel for each.

    Trials that ran to the end are dots, stopped ones triangles at their last
    report, diverged ones crosses along the end of bad values. Where there are many, a line
    joins the medians of eight stretches.

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
    names = varying_names(results)
    left_out = len(names) - MOST
    names = names[:MOST]
    across = min(4, max(1, len(names)))
    down = max(1, math.ceil(len(names) / across))
    figure = new_figure(max(6.0, 2.9 * across + 0.6), 2.7 * down + 0.6)
    rest = f"; {left_out} hyperparameters left out" if left_out > 0 else ""
    title = f"Slices: {counts(results)}{rest}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    values = final_values(results, metric)
    if not names:
        nothing(figure.add_subplot(), "no hyperparameter varies")
        return figure
    higher = results.larger_is_better(metric)
    inside = limit(values, values, higher)
    handles: dict[str, Any] = {}
    first = None
    for index, name in enumerate(names):
        axes = figure.add_subplot(down, across, index + 1, sharey=first)
        if first is None:
            first = axes
            figure.supylabel(say(metric) + scale_y(axes, metric, inside, higher), fontsize=10)
            if outside := beyond(axes, values, higher, "trial"):
                figure.suptitle(f"{title}; {outside}", x=0.01, ha="left", fontsize=11)
        if index % across:
            axes.tick_params(labelleft=False)
        _draw_panel(axes, results, column(results, name), values, higher, handles)
    keys = figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower left",
        ncols=len(handles) or 1,
        fontsize=8.5,
    )
    for key in keys.legend_handles:
        key.set_alpha(1)
        key.set_markersize(5)
    return figure


def _draw_panel(
    axes: Any,
    results: Any,
    one: Column,
    values: np.ndarray,
    higher: bool,
    handles: dict[str, Any],
) -> None:
    x = one.at + jitter(len(one.at), 0.3 / max(1, len(one.ticks) - 1) if one.names else 0.0)
    diverged = has_status(results, "diverged")
    stopped = has_status(results, "stopped")
    shown = np.isfinite(values) & np.isfinite(x)
    size = float(np.clip(60 / math.sqrt(max(1, shown.sum())), 2.0, 5.0))
    alpha = float(np.clip(150 / max(1, shown.sum()), 0.25, 0.85))
    low, high = axes.get_ylim()
    done = has_status(results, "done")
    for label, rows, mark, color in (
        ("stopped early", shown & stopped, "v", STOPPED),
        ("ran to the end", shown & done, "o", DONE),
        (results.says("running"), shown & ~stopped & ~done, "o", FAINT),
    ):
        if rows.any():
            (handle,) = axes.plot(
                x[rows],
                np.clip(values[rows], low, high),
                mark,
                color=color,
                markersize=size,
                alpha=alpha,
                markeredgewidth=0,
            )
            handles.setdefault(label, handle)
    failed = diverged & np.isfinite(x)
    if failed.any():
        (handle,) = axes.plot(
            x[failed],
            (0.025 if higher else 0.975) + jitter(int(failed.sum()), 0.012),
            "x",
            transform=axes.get_xaxis_transform(),
            color=DIVERGED,
            markersize=4,
            alpha=float(np.clip(60 / failed.sum(), 0.2, 0.8)),
        )
        handles.setdefault(f"diverged (at the {'bottom' if higher else 'top'})", handle)
    centres, medians = _medians(one, values, shown)
    if len(centres) > 1:
        look: dict[str, Any] = (
            {"marker": "_", "markersize": 16, "linestyle": ""} if one.names else {}
        )
        (handle,) = axes.plot(centres, medians, color=INK, linewidth=1.8, zorder=4, **look)
        handles.setdefault("median", handle)
    if not one.names and one.low != one.high:
        axes.set_xlim(-0.05, 1.05)
    else:
        room = 0.5 / max(1, len(one.ticks) - 1)
        axes.set_xlim(-room, 1 + room)
    axes.set_ylim(low, high)
    places, texts = zip(*one.ticks) if one.ticks else ((), ())
    crowded = one.names and sum(map(len, texts)) > 24
    leaning: dict[str, Any] = {"rotation": 35, "ha": "right"} if crowded else {}
    axes.set_xticks(places, texts, **leaning)
    axes.set_xlabel(one.label)
    if not shown.any() and not failed.any():
        nothing(axes, "no trial has reported")


def _medians(one: Column, values: np.ndarray, shown: np.ndarray) -> tuple[list[float], list[float]]:
    """The medians of the values of each name, or of stretches of equally many numbers."""
    at = one.at[shown]
    if at.size < 24:
        return [], []
    if one.names or len(np.unique(at)) <= BINS:
        bins = [np.flatnonzero(at == place) for place in np.unique(at)]
    else:
        bins = np.array_split(np.argsort(at, kind="stable"), BINS)
    own = values[shown]
    return [float(at[b].mean()) for b in bins], [float(np.median(own[b])) for b in bins]
