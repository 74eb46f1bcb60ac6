"""A sweep's picture: the final metric against one hyperparameter, a curve per program."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jdl.plot.style import FAINT, line_styles, new_figure, styled, words
from jdl.sweep.space import from_json

NAMES = {"lr": "learning rate", "l2": "strength of the L2 penalty"}


class Point(NamedTuple):
    """One configuration over its seeds.

    Attributes:
      x: its value of the hyperparameter drawn.
      mean: of the metric over the seeds that were done; NaN if none was.
      stderr: its standard error; NaN below two.
      done: seeds that were done.
      diverged: seeds that diverged.
      best: whether no other configuration of its group at this `x` is better.
    """

    x: Any
    mean: float
    stderr: float
    done: int
    diverged: int
    best: bool


def sweep_figure(results: Any, name: str, metric: str, chance: float | None = None) -> Any:
    """Draws the final `metric` of every configuration against its `name`.

    There is a curve for each static group (such as an optimizer), with a band
    of one standard error over seeds. Where other numbers vary too, the curve
    joins the best configuration at each value and the others are faint dots;
    where hardly a value occurs twice, as in a random search, only the dots are
    drawn. A strip below marks diverged trials, larger the more seeds did.

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


def points_by_group(results: Any, name: str, metric: str) -> dict[str, list[Point]]:
    """The points of each static group by its label, along the hyperparameter `name`."""
    statics = [n for n in varying(results, static=True) if n != name]
    status = {trial.trial: trial.status for trial in results.trials}
    groups: dict[str, list[Point]] = {
        group_label({n: trial.config[n] for n in statics}): [] for trial in results.trials
    }
    seen: set[tuple[str, Any]] = set()
    for summary in results.configurations(metric):  # best first
        label = group_label({n: summary.config[n] for n in statics})
        at = summary.config[name]
        first = (label, at) not in seen and not math.isnan(summary.mean)
        seen |= {(label, at)} if first else set()
        diverged = sum(status[trial] == "diverged" for trial in summary.trials)
        point = Point(at, summary.mean, summary.stderr, summary.done, diverged, first)
        groups[label].append(point)
    return groups


def varying(results: Any, static: bool) -> list[str]:
    """The static or the traced hyperparameters, seeds aside, that take more than one value."""
    space = from_json(results.specification["space"])
    names = [n for n in space if n != results.seed_name and space[n].static == static]
    return [n for n in names if len(set(_values(results, n))) > 1]


def group_label(statics: Mapping[str, Any]) -> str:
    """A group as a legend names it.

    >>> group_label({"optimizer": "adam"}), group_label({"optimizer": "adam", "hidden": 64})
    ('adam', 'adam hidden=64')
    """
    return " ".join(
        str(value) if isinstance(value, str) and not value[:1].isdigit() else f"{name}={value}"
        for name, value in statics.items()
    )


def _values(results: Any, name: str) -> list[Any]:
    return [trial.config.get(name) for trial in results.trials]


def _is_number(values: Iterable[Any]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def is_log(entry: Mapping[str, Any], values: Sequence[Any]) -> bool:
    """Whether an axis of `values`, of the space's `entry`, is drawn logarithmic."""
    if not _is_number(values) or min(values, default=0) <= 0:
        return False
    even = {"uniform", "grid", "integer"} & set(entry)
    return bool({"log_uniform", "log_grid"} & set(entry)) or (
        not even and max(values) / min(values) >= 100
    )


def _draw(
    results: Any, groups: dict[str, list[Point]], name: str, metric: str, chance: float | None
) -> Any:
    diverged = {label: [p for p in points if p.diverged] for label, points in groups.items()}
    strip = sum(1 for points in diverged.values() if points)
    figure = new_figure(8.0, 4.6 + 0.17 * strip)
    ratios = [4.6, 0.25 + 0.17 * strip]
    grid = figure.add_gridspec(2, 1, height_ratios=ratios) if strip else figure.add_gridspec(1, 1)
    axes = figure.add_subplot(grid[0])
    values = _values(results, name)
    if _is_number(values):
        place = {value: value for value in values}
    else:
        place = {value: index for index, value in enumerate(dict.fromkeys(values))}
        axes.set_xticks(range(len(place)), [str(value) for value in place])
    if log := is_log(results.specification["space"][name], values):
        axes.set_xscale("log")
    styles = line_styles(list(groups))
    others = any(n != name for n in varying(results, static=False))
    maximise = results.specification["goal"] == "max" or "accuracy" in metric
    for label, points in groups.items():
        # Where other numbers vary, a line is a profile only if values of `name` recur.
        scattered = others and len({p.x for p in points}) > 0.5 * len(points)
        _draw_group(axes, label, points, place, styles[label], scattered)
    if chance is not None:
        axes.axhline(chance, color=FAINT, linestyle=(0, (4, 3)), linewidth=1)
        where = axes.get_yaxis_transform()
        axes.text(0.005, chance, "chance", transform=where, va="bottom", color=FAINT, fontsize=8.5)
    _mark_best(axes, groups, place, maximise)
    means = [p.mean for points in groups.values() for p in points if not math.isnan(p.mean)]
    _scale_y(axes, metric, means, maximise)
    axes.set_ylabel(f"final {words(metric)}")
    axes.set_title(_title(results))
    if len(groups) > 1 or "" not in groups:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    bottom = axes
    if strip:
        bottom = figure.add_subplot(grid[1], sharex=axes)
        _draw_strip(bottom, diverged, place, styles)
        axes.tick_params(labelbottom=False)
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
    ridge = sorted((p for p in seen if p.best), key=lambda p: place[p.x])
    rest = [p for p in seen if not p.best]
    x = np.array([place[p.x] for p in ridge], float)
    mean = np.array([p.mean for p in ridge])
    error = np.nan_to_num([p.stderr for p in ridge])
    shown = {"label": label or None, "color": style["color"]}
    if scattered:
        axes.plot(x, mean, style["marker"], alpha=0.75, **shown)
        axes.errorbar(x, mean, error, fmt="none", ecolor=style["color"], alpha=0.4, linewidth=1)
        return
    axes.fill_between(x, mean - error, mean + error, color=style["color"], alpha=0.22, linewidth=0)
    axes.plot(x, mean, marker=style["marker"], linestyle=style["linestyle"], **shown)
    if rest:
        axes.plot(
            [place[p.x] for p in rest],
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
    best = (max if maximise else min)(seen, key=lambda p: p.mean)
    label = next(label for label, points in groups.items() if best in points)
    axes.plot(place[best.x], best.mean, "o", markersize=11, fillstyle="none", color="#333333")
    # The text grows away from the nearer end, so that it stays over the curves.
    along = axes.transData.transform((place[best.x], best.mean))[0] - axes.bbox.x0
    side = "left" if along < 0.2 * axes.bbox.width else "right"
    side = side if not 0.2 <= along / axes.bbox.width <= 0.8 else "center"
    at = f"{best.x:.3g}" if isinstance(best.x, float) else str(best.x)
    text = f"best: {best.mean:.3f}" + (f", {label}" if label else "") + f" at {at}"
    axes.annotate(
        text,
        (place[best.x], best.mean),
        xytext=(0, 11 if maximise else -11),
        textcoords="offset points",
        ha=side,
        va="bottom" if maximise else "top",
        fontsize=8.5,
    )


def _scale_y(axes: Any, metric: str, means: list[float], maximise: bool) -> None:
    if "accuracy" in metric:
        axes.set_ylim(0, 1.09)
        axes.set_yticks(np.arange(0, 1.01, 0.2))
        axes.spines["left"].set_bounds(0, 1)
    elif means and min(means) > 0 and max(means) / min(means) > 30:
        axes.set_yscale("log")
    elif not maximise:
        axes.margins(y=0.12)


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
            [place[p.x] for p in points],
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


def _title(results: Any) -> str:
    total, done = len(results.trials), results.count("done")
    seeds = len({trial.config.get(results.seed_name) for trial in results.trials})
    parts = [f"{total:,} trials"]
    parts += [f"{count:,} {s}" for s in ("diverged", "stopped") if (count := results.count(s))]
    left = total - done - results.count("diverged") - results.count("stopped")
    parts += [f"{left:,} to come"] if left else []
    band = f"; mean ± standard error over {seeds} seeds" if results.seed_name and seeds > 1 else ""
    return ", ".join(parts) + band
