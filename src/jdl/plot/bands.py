"""Curves with a band over seeds, in one panel or in several that share their axes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdl.plot.style import line_styles, new_figure, styled

Curves = Mapping[str, Any]
"""By name, values (seeds, points); or (points,) where there is one run."""


def bands_figure(
    x: Any,
    curves: Curves | Mapping[str, Curves],
    *,
    x_label: str,
    y_label: str,
    x_log: bool = False,
    y_log: bool = False,
    y_range: tuple[float, float] | None = None,
    quantiles: tuple[float, float] = (0.0, 1.0),
    marks: bool | None = None,
) -> Any:
    """Draws the median over seeds of each curve and a band between two quantiles.

    Args:
      x: the horizontal axis, (points,).
      curves: by name; or by the titles of panels, curves by name. A curve has
        the same colour in every panel. What is not finite leaves a gap.
      x_label: with its unit.
      y_label: with its unit.
      x_log: a logarithmic horizontal axis.
      y_log: a logarithmic vertical axis.
      y_range: of the vertical axis; None shows everything.
      quantiles: the band's ends; (0, 1) is from the least to the most.
      marks: whether to mark the points; None does so for up to 20.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: a curve does not have one value for each of `x`.
    """
    nested = all(isinstance(value, Mapping) for value in curves.values())
    panels: dict[str, Any] = dict(curves) if nested else {"": curves}
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    looks = line_styles(names)
    x = np.asarray(x, float)
    marks = len(x) <= 20 if marks is None else marks
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    with styled():
        figure = new_figure(7.2 if columns == 1 else 0.6 + 3.6 * columns, 0.7 + 3.3 * rows)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for axes, (title, panel) in zip(grid.flat, panels.items()):
            if x_log:
                axes.set_xscale("log")
            if y_log:
                axes.set_yscale("log")
            for name, values in panel.items():
                draw_band(axes, x, values, name, looks[name], quantiles, marks)
            axes.set_title(title)
        for axes in grid[-1]:
            axes.set_xlabel(x_label + (" (log scale)" if x_log else ""))
        for axes in grid[:, 0]:
            # No longer than the panel is high, or it would run into the legend.
            axes.set_ylabel(_wrapped(y_label, y_log))
        if y_range is not None:
            grid[0, 0].set_ylim(y_range)
        if y_log and grid[0, 0].get_ylim()[0] > 1e-3:
            _plain_numbers(grid[0, 0].yaxis)
        handles: dict[str, Any] = {}
        for axes in figure.axes:
            handles |= {line.get_label(): line for line in axes.get_lines()}
        if len(names) > 1:
            shown = [handles[name] for name in names]
            columns = legend_columns(names, figure.get_figwidth())
            figure.legend(shown, names, loc="outside upper center", ncols=columns)
        return figure


def legend_columns(names: Sequence[str], width: float) -> int:
    """How many entries fit beside each other in a figure of that width in inches, five at most.

    >>> legend_columns(["sgd", "adam"], 7.2), legend_columns(["a long name of a network"] * 4, 7.2)
    (2, 2)
    """
    widest = 0.7 + 0.08 * max(len(name) for name in names)
    fitting = max(1, min(5, int(width / widest), len(names)))
    rows = -(-len(names) // fitting)
    return -(-len(names) // rows)  # rows of equal length


def _wrapped(label: str, log: bool) -> str:
    lines = textwrap.fill(label, 40)
    if not log:
        return lines
    return lines + ("\n" if len(label) > 28 else " ") + "(log scale)"


def _plain_numbers(axis: Any) -> None:
    """0.05 for 5e-2, and numbers between the powers of ten where few of those are in sight."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axis.set_major_formatter(Plain())
    axis.set_minor_formatter(Plain(labelOnlyBase=False, minor_thresholds=(1, 0.4)))


def draw_band(
    axes: Any,
    x: np.ndarray,
    values: Any,
    name: str,
    look: dict[str, Any],
    quantiles: tuple[float, float],
    marks: bool,
) -> None:
    """One median line named `name`, and its band if there are two seeds or more."""
    table = np.atleast_2d(np.asarray(values, float))
    if table.ndim != 2 or table.shape[1] != len(x):
        raise ValueError(
            f"A curve has one value for each of the {len(x)} points of x, got shape "
            f"{np.shape(values)} for {name!r}."
        )
    # A seed that diverged takes the curve with it: a median of the others would flatter it.
    table = np.where(np.isfinite(table).all(0), table, np.nan)
    low, middle, high = np.quantile(table, [quantiles[0], 0.5, quantiles[1]], axis=0)
    style = look if marks else look | {"marker": None}
    axes.plot(x, middle, label=name, zorder=3, **style)
    if len(table) > 1:
        axes.fill_between(x, low, high, color=look["color"], alpha=0.18, linewidth=0, zorder=2)
