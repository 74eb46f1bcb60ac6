"""The roofline: each measurement's FLOP/s by its FLOPs a byte, below the ceilings of the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jdl.bench.ceilings import GROUP
from jdl.bench.measurement import Measurement
from jdl.bench.report import figure as readable
from jdl.bench.report import label
from jdl.plot.labels import place_labels
from jdl.plot.style import INK, line_styles, new_figure, styled

NAMES = {
    "updates": "optimizer updates",
    "layers": "layers, both passes",
    "steps": "training steps",
    "lanes": "lanes",
}


def roofline_figure(measurements: Sequence[Measurement], title: str = "") -> Any:
    """Draws what was measured below `min(matmul FLOP/s, copy bytes/s * FLOPs a byte)`.

    A point on the slope is bound by memory, one below the flat part by arithmetic; how far it is
    below the roof is what it leaves unused. A point above the slope works in a cache.

    Args:
      measurements: ceilings among them.
      title: what stands above.

    Returns:
      The matplotlib figure.

    Williams, Waterman, Patterson 2009, "Roofline: an insightful visual performance model".
    """
    ceilings = [m for m in measurements if m.group == GROUP]
    points = [m for m in measurements if m.group in NAMES]
    with styled():
        figure = new_figure(8.6, 5.8)
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("FLOP/byte (log scale)")
        axes.set_ylabel("GFLOP/s (log scale)")
        axes.set_title(title)
        for group, look in zip(NAMES, line_styles(list(NAMES)).values()):
            mine = [m for m in points if m.group == group]
            axes.plot(
                [m.intensity for m in mine],
                [m.flops_per_second / 1e9 for m in mine],
                look["marker"],
                color=look["color"],
                markersize=5.5,
                label=NAMES[group],
            )
        xs = [m.intensity for m in points] or [1.0]
        left, right = min(xs) / 3, max(xs) * 6
        roofs = [
            place
            for devices in _devices(ceilings)
            for place in _roof(axes, ceilings, devices, left, right)
        ]
        places = [(m.intensity, m.flops_per_second / 1e9, label(m)) for m in points] + roofs
        axes.set_xlim(left, right)
        if places:
            _, ys, _ = zip(*places)
            axes.set_ylim(min(ys) / 2, max(ys) * 2.5)
        axes.legend(loc="lower right")
        place_labels(figure, axes, [place[:2] for place in places], [place[2] for place in places])
        return figure


def _devices(ceilings: Sequence[Measurement]) -> list[int]:
    return sorted({m.devices for m in ceilings})


def _roof(
    axes: Any, ceilings: Sequence[Measurement], devices: int, left: float, right: float
) -> list[tuple[float, float, str]]:
    """Draws slope and flat parts of so many devices, and gives the places of their labels."""
    here = [m for m in ceilings if m.devices == devices]
    copies = [m.bytes_per_second / 1e9 for m in here if m.name == "copy"]
    products = [m for m in here if m.name == "matmul"]
    if not copies or not products:
        return []
    (slope,) = copies
    whose = "" if len(_devices(ceilings)) == 1 else f", {devices} device{'s' * (devices > 1)}"
    highest = max(m.flops_per_second / 1e9 for m in products)
    axes.plot([left, highest / slope], [slope * left, highest], color=INK, linewidth=1.2, zorder=1)
    # Under the lowest slope, above the others.
    at = 1.3 * left if devices == min(_devices(ceilings)) else highest / slope / 3
    places = [(at, at * slope, f"copy {readable(slope)} GB/s{whose}")]
    for m in products:
        height = m.flops_per_second / 1e9
        axes.plot([height / slope, right], [height] * 2, color=INK, linewidth=1.2, zorder=1)
        text = f"matmul {m.dtype} {readable(height)} GFLOP/s{whose}"
        places.append((right / 4, height, text))
    return places
