"""Labels beside points, placed so that no two of them and no point collide."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jdl.plot.style import FAINT, INK

MARKER = 7.0  # half the side of the square that a point keeps free, in pixels at 100 dpi
RADII = (7, 12, 18, 26, 38, 52, 70, 90, 115, 145, 180, 220)
ANGLES = 24


class _Box(NamedTuple):
    x0: float
    y0: float
    x1: float
    y1: float


def place_labels(
    figure: Any,
    axes: Any,
    points: Sequence[tuple[float, float]],
    labels: Sequence[str],
    fontsize: float = 8.0,
) -> None:
    """Writes each label near its point, and draws a line to it where it stands off.

    Each takes the nearest of some positions around its point at which it meets no label, point
    or text that is there already, and crosses as few lines as possible.

    Args:
      figure: whose layout is fixed by this.
      axes: whose limits are set.
      points: in data coordinates.
      labels: of each point.
      fontsize: of the labels, in points.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.draw_without_rendering()  # lays out the axes
    figure.set_layout_engine("none")
    renderer = FigureCanvasAgg(figure).get_renderer()
    frame = _Box(*axes.get_window_extent(renderer).extents)
    centres = axes.transData.transform(np.reshape(points, (-1, 2)))
    unit = figure.dpi / 100
    taken = [_around(centre, MARKER * unit) for centre in centres]
    legend = axes.get_legend()
    others = [*axes.texts, *([legend] if legend else [])]
    taken += [_Box(*text.get_window_extent(renderer).extents) for text in others]
    drawn = [line for line in axes.get_lines() if line.get_linestyle() != "None"]
    obstacles = [axes.transData.transform(line.get_xydata()) for line in drawn]
    # Long labels choose first, since fewer places will do for them.
    for index in sorted(range(len(labels)), key=lambda index: -len(labels[index])):
        text = axes.annotate(
            labels[index],
            points[index],
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=fontsize,
            color=INK,
        )
        size = text.get_window_extent(renderer)
        half = np.array([size.width / 2 + 3 * unit, size.height / 2 + unit])
        offset = _place(centres[index], half, frame, taken, obstacles, unit)
        text.set_position(tuple(offset * 72 / figure.dpi))
        middle = centres[index] + offset
        taken.append(_around(middle, half))
        gap = np.maximum(np.abs(offset) - half, 0)
        if np.hypot(*gap) > 9 * unit:
            ends = np.array(
                [centres[index], middle - np.sign(offset) * np.minimum(half, abs(offset))]
            )
            axes.plot(
                *axes.transData.inverted().transform(ends).T, color=FAINT, linewidth=0.6, zorder=1
            )
            obstacles.append(ends)


def _place(
    centre: np.ndarray,
    half: np.ndarray,
    frame: _Box,
    taken: Sequence[_Box],
    obstacles: Sequence[np.ndarray],
    unit: float,
) -> np.ndarray:
    """The offset in pixels of a label's middle from its point."""
    best, least, own = np.zeros(2), np.inf, _around(centre, unit)
    for radius in RADII:
        for turn in np.arange(ANGLES) * 2 * np.pi / ANGLES:
            direction = np.array([np.cos(turn), np.sin(turn)])
            offset = (radius * unit) * direction + half * direction
            box = _around(centre + offset, half)
            outside = (
                box.x0 < frame.x0 or box.y0 < frame.y0 or box.x1 > frame.x1 or box.y1 > frame.y1
            )
            met = sum(_meet(box, other) for other in taken)
            crossed = sum(_crosses(line, box) for line in obstacles)
            cost = radius + 80 * crossed + 1e4 * met + 1e6 * outside
            if cost < least:
                leader = np.array([centre, centre + offset])
                passed = [b for b in taken if not _meet(b, own) and _crosses(leader, b)]
                cost += 30 * len(passed)
            if cost < least:
                best, least = offset, cost
    return best


def _around(middle: np.ndarray, half: Any) -> _Box:
    return _Box(*(middle - half), *(middle + half))


def _meet(a: _Box, b: _Box) -> bool:
    return bool(a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1)


def _crosses(line: np.ndarray, box: _Box) -> bool:
    """Whether a line through points, in pixels, enters the box."""
    for (ax, ay), (bx, by) in itertools.pairwise(line):
        steps = np.linspace(0, 1, max(2, int(max(abs(bx - ax), abs(by - ay)) / 4)))
        xs, ys = ax + steps * (bx - ax), ay + steps * (by - ay)
        if np.any((xs > box.x0) & (xs < box.x1) & (ys > box.y0) & (ys < box.y1)):
            return True
    return False
