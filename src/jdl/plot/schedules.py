"""Schedules as small pictures side by side: the value at every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jdl.plot.style import PALETTE, new_figure, styled


def schedules_figure(
    schedules: Mapping[str, Callable[[Any], Any]],
    steps: int,
    *,
    y_label: str = "learning rate",
    y_log: bool = False,
) -> Any:
    """Draws each schedule in a panel of its own, all on the same axes.

    Args:
      schedules: by name, functions of the step, counted from 0, which take an
        array of steps as those of `optim` do, or one step at a time.
      steps: how many to draw.
      y_label: of the vertical axis.
      y_log: a logarithmic vertical axis.

    Returns:
      The matplotlib figure.
    """
    at = np.arange(steps)
    columns = min(len(schedules), 5)
    rows = -(-len(schedules) // columns)
    with styled():
        figure = new_figure(0.6 + 2.1 * columns, 0.4 + 1.75 * rows)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(schedules) :]:
            axes.remove()
        for axes, (name, schedule) in zip(grid.flat, schedules.items()):
            values = np.asarray(schedule(at), float)
            axes.plot(at, np.broadcast_to(values, at.shape), color=PALETTE[0])
            axes.set_title(name, fontsize=10)
            if y_log:
                axes.set_yscale("log")
        for axes in grid[-1]:
            axes.set_xlabel("step")
        figure.supylabel(y_label + (" (log scale)" if y_log else ""), fontsize=10)
        return figure
