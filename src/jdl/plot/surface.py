"""A loss of two parameters as a surface in space, and paths on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jdl.plot.contour import Loss, grid_values
from jdl.plot.style import SHADES, line_styles, new_figure, styled


def surface_figure(
    loss: Loss,
    paths: Mapping[str, Any] | None = None,
    *,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    labels: tuple[str, str, str] = ("weight w", "bias b", "loss"),
    view: tuple[float, float] = (35.0, -60.0),
) -> Any:
    """Draws the surface, shaded by height, and each path at the height of the loss along it.

    Args:
      loss: `points (n, 2) -> values (n,)`, as `jax.vmap(loss)` is.
      paths: by name, points (steps + 1, 2); points outside the ranges are left out.
      x_range: of the first parameter.
      y_range: of the second.
      labels: of the three axes.
      view: elevation and azimuth, in degrees.

    Returns:
      The matplotlib figure.
    """
    xs, ys, values = grid_values(loss, x_range, y_range)
    with styled():
        figure = new_figure(6.6, 5.0)
        axes = figure.add_subplot(projection="3d", computed_zorder=False)
        axes.plot_surface(
            *np.meshgrid(xs, ys), values, cmap=SHADES, rcount=50, ccount=50, linewidth=0, alpha=0.85
        )
        named = {name: np.asarray(path, float) for name, path in (paths or {}).items()}
        lift = 0.01 * float(np.ptp(values))  # so that the surface does not cover its own paths
        for (name, path), look in zip(named.items(), line_styles(list(named)).values()):
            inside = (path >= [x_range[0], y_range[0]]) & (path <= [x_range[1], y_range[1]])
            shown = np.where(inside.all(1, keepdims=True), path, np.nan)
            height = np.asarray(loss(path.astype(np.float32)), float) + lift
            axes.plot(*shown.T, height, label=name, color=look["color"], linewidth=2, zorder=5)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.set_zlabel(labels[2], labelpad=8)
        axes.view_init(*view)
        axes.set_box_aspect((1, 1, 0.7), zoom=0.92)
        if named:
            axes.legend(loc="upper left")
        return figure
