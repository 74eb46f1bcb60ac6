"""Contours of a loss of two parameters with the paths that optimizers take, whole or as frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jdl.plot.bands import legend_columns
from jdl.plot.style import FAINT, INK, line_styles, new_figure, styled

Loss = Callable[[Any], Any]
"""`points (n, 2) -> values (n,)`, as `jax.vmap(loss)` is."""

_DETAIL = 81  # points along each side of the grid
_LEVELS = 14


def contour_figure(
    loss: Loss,
    paths: Mapping[str, Any],
    *,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    minimum: Sequence[float] | None = None,
    labels: tuple[str, str] = ("weight w", "bias b"),
    frames: Sequence[int] = (),
    apart: bool = False,
) -> Any:
    """Draws level lines, closer together towards the minimum, and every path on them.

    Args:
      loss: `points (n, 2) -> values (n,)`.
      paths: by name, points (steps + 1, 2) from the start on. What leaves the
        picture is cut at its edge.
      x_range: of the first parameter.
      y_range: of the second.
      minimum: where it is, marked by a star.
      labels: of the axes.
      frames: steps; each gets a panel with the paths so far, for the course of
        time. Empty for one picture of the whole.
      apart: a panel for each path instead, one beside another.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: `apart` with `frames`, a path that is not (steps + 1, 2), or
        a loss that is not finite on the grid.
    """
    if apart and frames:
        raise ValueError("`apart` and `frames` both divide the picture: give one of them.")
    drawn = {name: np.asarray(path, float) for name, path in paths.items()}
    for name, path in drawn.items():
        if path.ndim != 2 or path.shape[1] != 2:
            raise ValueError(f"A path has shape (steps + 1, 2), got {path.shape} for {name!r}.")
    looks = line_styles(list(drawn))
    xs, ys, values = grid_values(loss, x_range, y_range)
    last = max((len(path) for path in drawn.values()), default=1) - 1
    panels: list[tuple[str, int, list[str]]] = [("", last, list(drawn))]
    if frames:
        panels = [(f"after {frame} steps", frame, list(drawn)) for frame in frames]
    elif apart:
        panels = [(name, last, [name]) for name in drawn]
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    with styled():
        size = (7.2, 5.0) if len(panels) == 1 else (0.6 + 3.0 * columns, 0.5 + 2.9 * rows)
        figure = new_figure(*size)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for axes, (title, until, names) in zip(grid.flat, panels):
            _levels(axes, xs, ys, values)
            for name in names:
                _path(axes, name, drawn[name][: until + 1], looks[name], x_range, y_range)
            if minimum is not None:
                axes.plot(*minimum, "*", color=INK, markersize=11, zorder=4, label="minimum")
            axes.set_xlim(x_range)
            axes.set_ylim(y_range)
            axes.set_title(title)
        for axes in grid[-1]:
            axes.set_xlabel(labels[0])
        for axes in grid[:, 0]:
            axes.set_ylabel(labels[1])
        handles, names = grid[0, 0].get_legend_handles_labels()
        if apart:  # the titles name the paths
            handles, names = handles[1:], names[1:]
        if names:
            columns = legend_columns(names, figure.get_figwidth())
            figure.legend(handles, names, loc="outside upper center", ncols=columns)
        return figure


def grid_values(
    loss: Loss, x_range: tuple[float, float], y_range: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The values of `loss` on a grid over both ranges: `(xs, ys, values (ys, xs))`."""
    xs, ys = np.linspace(*x_range, _DETAIL), np.linspace(*y_range, _DETAIL)
    points = np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2).astype(np.float32)
    values = np.asarray(loss(points), float).reshape(len(ys), len(xs))
    if not np.isfinite(values).all():
        raise ValueError("The loss is not finite everywhere on the grid: narrow the ranges.")
    return xs, ys, values


def _levels(axes: Any, xs: np.ndarray, ys: np.ndarray, values: np.ndarray) -> None:
    low, high = values.min(), values.max()
    high = high if high > low else low + 1  # of a loss that is flat
    # Evenly in the square root: of a bowl that is evenly in the distance.
    levels = low + (high - low) * np.linspace(0, 1, _LEVELS) ** 2
    # Shades of grey leave every colour to the paths.
    shades = [str(grey) for grey in np.linspace(0.68, 1.0, _LEVELS - 1)]
    axes.contourf(xs, ys, values, levels=levels, colors=shades, zorder=0)
    axes.contour(xs, ys, values, levels=levels, colors=FAINT, linewidths=0.6, zorder=1)
    axes.grid(visible=False)


def _path(
    axes: Any,
    name: str,
    path: np.ndarray,
    look: dict[str, Any],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
) -> None:
    every = max(1, (len(path) - 1) // 12)
    axes.plot(
        path[:, 0],
        path[:, 1],
        label=name,
        markevery=every,
        markersize=3.5,
        linewidth=1.5,
        zorder=3,
        **look,
    )
    x, y = path[-1]
    inside = x_range[0] <= x <= x_range[1] and y_range[0] <= y <= y_range[1]
    if inside:  # where it is now
        axes.plot(x, y, look["marker"], color=look["color"], markersize=7, mec="white", zorder=5)
