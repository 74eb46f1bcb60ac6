"""The lanes' timeline: which trial was in which lane when, and where a lane idled."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jdl.plot.columns import counts, nothing
from jdl.plot.style import DIVERGED, DONE, FAINT, STOPPED, new_figure, styled
from jdl.sweep.points import group_of, varying

MOST = 6  # programs, a panel each
_LOOKS = {"done": DONE, "stopped": STOPPED, "diverged": DIVERGED}


class Bar(NamedTuple):
    """One trial in its lane.

    Attributes:
      trial: its number.
      lane: where it ran.
      start: the steps that its program's lanes had made when it began.
      steps: that it made, as far as they were reported.
      status: how it ended.
    """

    trial: int
    lane: int
    start: int
    steps: int
    status: str


def bars_by_program(results: Any) -> dict[str, list[Bar]]:
    """The trials of each program in their lanes.

    Time is counted in the training steps that a program's lanes make side by
    side: a segment is as long as the trial that reports most in it.
    """
    statics = varying(results, static=True)
    every = results.specification["report_every"]
    trials = {trial.trial: trial for trial in results.trials}
    label = {n: group_of(trial.config, statics) for n, trial in trials.items()}
    clock: dict[str, int] = {}
    began: dict[int, int] = {}
    made: dict[int, int] = {}
    table = results.lanes.segments
    for turn in np.unique(table[:, 0]):
        rows = table[table[:, 0] == turn]
        by_label: dict[str, int] = {}
        for _, trial, reports in rows.tolist():
            began.setdefault(trial, clock.get(label[trial], 0))
            made[trial] = made.get(trial, 0) + reports * every
            by_label[label[trial]] = max(by_label.get(label[trial], 0), reports * every)
        for name, steps in by_label.items():
            clock[name] = clock.get(name, 0) + steps
    bars: dict[str, list[Bar]] = {}
    for trial, start in began.items():
        if (lane := results.lanes.of.get(trial)) is not None:
            bar = Bar(trial, lane, start, made[trial], trials[trial].status)
            bars.setdefault(label[trial], []).append(bar)
    order = list(dict.fromkeys(label.values()))
    return {name: bars[name] for name in order if name in bars}


def timeline_figure(results: Any) -> Any:
    """Draws every trial as a bar in its lane, along the steps that the lanes made.

    White is idle, or a lane that a narrower program no longer had: the busy
    share is of the widest row, from its first to its last step. A trial is drawn
    in the lane that it began in. A program has a panel of its own.

    Args:
      results: of a sweep, finished or running.

    Returns:
      The matplotlib figure.
    """
    with styled():
        return _draw(results)


def _draw(results: Any) -> Any:
    from matplotlib.collections import PolyCollection
    from matplotlib.patches import Patch

    every = bars_by_program(results)
    shown = dict(list(every.items())[:MOST])
    lanes = {name: 1 + max(bar.lane for bar in bars) for name, bars in shown.items()}
    heights = [0.35 + min(2.2, 0.16 * count) for count in lanes.values()] or [3.0]
    figure = new_figure(8.4, 1.2 + sum(heights) + 0.3 * len(heights))
    title = f"Lanes: {counts(results)}"
    if len(every) > MOST:
        title += f"; {len(every) - MOST} programs left out"
    if not shown:
        axes = figure.add_subplot()
        axes.set_axis_off()
        nothing(axes, "no trial has reported")
        return figure
    panels = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
    seen = set()
    for axes, (name, bars) in zip(panels, shown.items()):
        end = max(bar.start + bar.steps for bar in bars)
        gap = 0.0015 * end
        boxes = []
        for bar in bars:
            left, right = bar.start + gap, bar.start + bar.steps - gap
            low, high = bar.lane - 0.42, bar.lane + 0.42
            boxes.append([(left, low), (right, low), (right, high), (left, high)])
        colors = [_LOOKS.get(bar.status, FAINT) for bar in bars]
        axes.add_collection(PolyCollection(boxes, facecolors=colors, linewidths=0))
        seen |= {results.says(bar.status) for bar in bars}
        busy = sum(bar.steps for bar in bars) / max(1, end * lanes[name])
        axes.set_title(
            f"{name or 'one program'}: {100 * busy:.0f} % of its widest row busy", fontsize=9.5
        )
        axes.set_ylim(lanes[name] - 0.4, -0.6)
        ticks = range(0, lanes[name], max(1, lanes[name] // 6))
        axes.set_yticks(list(ticks))
        axes.set_ylabel("lane")
        axes.grid(False)
    panels[-1].set_xlim(0, 1.01 * max(b.start + b.steps for bars in shown.values() for b in bars))
    panels[-1].set_xlabel("training steps that each of the program's lanes had time for")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    looks = {**_LOOKS, results.says("running"): FAINT}
    figure.legend(
        handles=[Patch(color=looks[s], label=s) for s in looks if s in seen],
        loc="outside right center",
    )
    return figure
