"""What layers give, as histograms by depth: one panel a network, one row a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdl.plot.style import FAINT, PALETTE, new_figure, styled

_BINS = 60


def depth_figure(
    networks: Mapping[str, Sequence[Any]],
    *,
    limit: float | None = None,
    x_label: str = "activation",
    row_label: str = "layer",
) -> Any:
    """Draws a histogram of each layer's values, from the input side down, network by network.

    Each histogram is as high as its row, whatever its counts, and its standard
    deviation stands beside it: the shape is drawn and the scale is said, since
    a signal that fades by a factor of ten a layer fits no common axis.

    Args:
      networks: by title, for each layer an array of what it gave. Networks may
        differ in depth.
      limit: of the horizontal axis, from `-limit` to `limit`, or from 0 where
        nothing is negative; what lies beyond is counted in the last bar. None
        is 3 standard deviations of the network's widest layer or its largest
        value, whichever is less, each panel its own.
      x_label: of the horizontal axis.
      row_label: what a row is, where it is no layer.

    Returns:
      The matplotlib figure.
    """
    count = len(networks)
    columns = min(count, 3)
    rows = -(-count // columns)
    deepest = max(len(layers) for layers in networks.values())
    with styled():
        figure = new_figure(0.5 + 3.5 * columns, rows * (0.9 + 0.3 * deepest))
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[count:]:
            axes.remove()
        for axes, (title, layers) in zip(grid.flat, networks.items()):
            flat = [np.asarray(layer, float).ravel() for layer in layers]
            widest = max(float(layer.std()) for layer in flat)
            largest = max(float(np.abs(layer).max()) for layer in flat)
            end = limit if limit is not None else (min(3 * widest, largest) or 1.0)
            start = -end if min(layer.min() for layer in flat) < 0 else 0.0
            for row, layer in enumerate(flat):
                edges = np.linspace(start, end, _BINS + 1)
                bars = np.histogram(np.clip(layer, start, end), edges)[0]
                # The square root, or one full bar hides all others.
                height = 0.85 * np.sqrt(bars / max(bars.max(), 1))
                axes.stairs(height - row, edges, baseline=-row, fill=True, color=PALETTE[0])
                axes.text(
                    1.02,
                    0.3 - row,
                    f"{layer.std():.2g}",
                    transform=axes.get_yaxis_transform(),
                    va="center",
                    fontsize=8,
                    color=FAINT,
                )
            axes.set_yticks([0.3 - row for row in range(len(flat))], range(1, len(flat) + 1))
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="y", visible=False)
            axes.spines["left"].set_visible(False)
            axes.set_xlim(start, end)
            axes.set_ylim(-deepest + 0.9, 1.1)
            axes.set_title(title)
            axes.set_xlabel(x_label)
        for axes in grid[:, 0]:
            axes.set_ylabel(f"{row_label} (right: standard deviation)")
        return figure
