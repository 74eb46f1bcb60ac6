"""A sweep's picture: the final metric against one hyperparameter, a curve per program."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from jdl.plot.columns import NAMES, counts, say
from jdl.plot.scale import scale_y
from jdl.plot.style import FAINT, line_styles, new_figure, styled
from jdl.sweep.points import Point, averaged, is_log, is_number, points_by_group, values_of, varying


def sweep_figure(results: Any, name: str, metric: str, chance: float | None = None) -> Any:
    """Draws the final `metric` of every configuration against its `name`.

    There is a curve for each static group (such as an optimizer), with a band
    of one standard error over seeds. Where other numbers vary too, the curve
    joins the best configuration at each value and the others are faint dots;
    where hardly a value occurs twice, as in a random search, only the dots are
    drawn. Trials that were stopped early are the smallest dots. A strip beyond
    the end of bad values marks diverged trials, larger the more seeds did.

    Args:
      results: of a sweep, finished or running.
      name: the hyperparameter on the horizontal axis, logarithmic if its values
        are spaced so.
      metric: any that the sweep reports, or a test metric.
      chance: the metric of a model that has learnt nothing, drawn as a line.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: the sweep has no such hyperparameter or metric.
    """
    space = results.specification["space"]
    if name not in space:
        raise ValueError(f"`name` must be one of {', '.join(space)}, got {name!r}.")
    known = dict.fromkeys(key for trial in results.trials for key in trial.metrics)
    if known and metric not in known:
        raise ValueError(f"`metric` must be one of {', '.join(known)}, got {metric!r}.")
    groups = points_by_group(results, name, metric)
    with styled():
        return _draw(results, groups, name, metric, chance)


def _draw(
    results: Any, groups: dict[str, list[Point]], name: str, metric: str, chance: float | None
) -> Any:
    diverged = {label: [p for p in points if p.diverged] for label, points in groups.items()}
    strip = sum(1 for points in diverged.values() if points)
    figure = new_figure(8.0, 4.6 + 0.17 * strip)
    ratios = [4.6, 0.25 + 0.17 * strip]
    maximise = results.larger_is_better(metric)
    # Diverged trials lie beyond the bad end of the axis.
    ratios = ratios if maximise else ratios[::-1]
    grid = figure.add_gridspec(2, 1, height_ratios=ratios) if strip else figure.add_gridspec(1, 1)
    axes = figure.add_subplot(grid[0 if maximise or not strip else 1])
    values = values_of(results, name)
    if is_number(values):
        place = {repr(value): value for value in values}
    else:
        options = {repr(value): str(value) for value in values}
        place = {written: index for index, written in enumerate(options)}
        axes.set_xticks(range(len(place)), list(options.values()))
    if log := is_log(results.specification["space"][name], values):
        axes.set_xscale("log")
    # An invisible line makes the axis span all that was tried, whatever came of it.
    axes.plot([min(place.values()), max(place.values())], [math.nan, math.nan])
    styles = line_styles(list(groups))
    others = any(n != name for n in varying(results, static=False))
    for label, points in groups.items():
        # Where other numbers vary, a line is a profile only if values of `name` recur; and
        # between names there is nothing to join.
        lonely = others and len({repr(p.x) for p in points}) > 0.5 * len(points)
        scattered = lonely or not is_number(values)
        _draw_group(axes, label, points, place, styles[label], scattered)
    shown = [y for points in groups.values() for p in points for y in (*p.span, p.early)]
    scale = scale_y(axes, metric, [y for y in shown if not math.isnan(y)], maximise)
    # Far below everything, chance would only press the curves together.
    if chance is not None and chance >= axes.get_ylim()[0]:
        axes.axhline(chance, color=FAINT, linestyle=(0, (4, 3)), linewidth=1)
        where = axes.get_yaxis_transform()
        axes.text(1.01, chance, "chance", transform=where, va="center", color=FAINT, fontsize=8.5)
    _mark_best(axes, groups, place, maximise)
    axes.set_ylabel(say(metric) + scale)
    title = _title(results, (p for points in groups.values() for p in points))
    if not strip:
        axes.set_title(title)
    if len(groups) > 1 or "" not in groups:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    bottom = axes
    if strip:
        beside = figure.add_subplot(grid[1 if maximise else 0], sharex=axes)
        _draw_strip(beside, diverged, place, styles)
        above, bottom = (axes, beside) if maximise else (beside, axes)
        above.tick_params(labelbottom=False)
        above.set_title(title)
    bottom.set_xlabel(NAMES.get(name, name) + (" (log scale)" if log else ""))
    return figure


def _draw_group(
    axes: Any,
    label: str,
    points: list[Point],
    place: dict[Any, Any],
    style: dict[str, Any],
    scattered: bool,
) -> None:
    seen = [p for p in points if not math.isnan(p.mean)]
    ridge = sorted((p for p in seen if p.best), key=lambda p: place[repr(p.x)])
    rest = [p for p in seen if not p.best]
    early = [p for p in points if not math.isnan(p.early)]
    axes.plot(
        [place[repr(p.x)] for p in early],
        [p.early for p in early],
        ".",
        color=style["color"],
        alpha=0.5,
        markersize=3,
    )
    x = np.array([place[repr(p.x)] for p in ridge], float)
    mean = np.array([p.mean for p in ridge])
    error = np.nan_to_num([p.stderr for p in ridge])
    shown = {"label": label or None, "color": style["color"]}
    if scattered:
        axes.plot(x, mean, style["marker"], alpha=0.75, **shown)
        axes.errorbar(x, mean, error, fmt="none", ecolor=style["color"], alpha=0.4, linewidth=1)
    else:
        low, high = mean - error, mean + error
        axes.fill_between(x, low, high, color=style["color"], alpha=0.22, linewidth=0)
        axes.plot(x, mean, marker=style["marker"], linestyle=style["linestyle"], **shown)
    if rest:
        axes.plot(
            [place[repr(p.x)] for p in rest],
            [p.mean for p in rest],
            style["marker"],
            color=style["color"],
            alpha=0.25,
            markeredgewidth=0,
        )


def _mark_best(
    axes: Any, groups: dict[str, list[Point]], place: dict[Any, Any], maximise: bool
) -> None:
    seen = [p for points in groups.values() for p in points if not math.isnan(p.mean)]
    if not seen:
        axes.text(0.5, 0.5, "no trial is done", transform=axes.transAxes, ha="center", color=FAINT)
        return
    best = min(seen, key=lambda p: p.rank)
    label = next(label for label, points in groups.items() if best in points)
    axes.plot(place[repr(best.x)], best.mean, "o", markersize=11, fillstyle="none", color="#333333")
    # The text grows away from the nearer end, so that it stays over the curves.
    along = axes.transData.transform((place[repr(best.x)], best.mean))[0] - axes.bbox.x0
    share = along / axes.bbox.width
    side = "left" if share < 0.2 else "right" if share > 0.8 else "center"
    at = f"{best.x:.3g}" if isinstance(best.x, float) else str(best.x)
    text = f"best: {best.mean:.3f}" + (f", {label}" if label else "") + f" at {at}"
    axes.annotate(
        text,
        (place[repr(best.x)], best.mean),
        xytext=(0, 11 if maximise else -11),
        textcoords="offset points",
        ha=side,
        va="bottom" if maximise else "top",
        fontsize=8.5,
    )


def _draw_strip(
    axes: Any,
    diverged: dict[str, list[Point]],
    place: dict[Any, Any],
    styles: dict[str, dict[str, Any]],
) -> None:
    rows = [label for label, points in diverged.items() if points]
    for row, label in enumerate(rows):
        points = diverged[label]
        size = [8 + 18 * p.diverged / (p.diverged + p.done) for p in points]
        axes.scatter(
            [place[repr(p.x)] for p in points],
            [row] * len(points),
            s=size,
            marker="x",
            color=styles[label]["color"],
            linewidths=1.3,
        )
    axes.set_ylim(len(rows) - 0.3, -0.7)
    axes.set_yticks(range(len(rows)), [label or "diverged" for label in rows], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    axes.set_ylabel("diverged", fontsize=8.5, color=FAINT)


def _title(results: Any, points: Iterable[Point]) -> str:
    return counts(results) + averaged(results, points)
