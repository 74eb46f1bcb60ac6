"""A population's lineage, and the schedule that it learned for every number."""

from __future__ import annotations

from typing import Any

import numpy as np

from jdl.plot.columns import NAMES, counts, final_values, nothing
from jdl.plot.style import DONE, FAINT, INK, STOPPED, new_figure, styled
from jdl.sweep.points import is_log, words
from jdl.sweep.population import ancestry

COLUMNS = 2


def population_figure(results: Any, metric: str | None = None) -> Any:
    """Draws who copied whom, and what each number was at every report.

    A member is a row, along the steps; where it copied another's state a line
    comes down or up from that one. The black line follows the weights of the
    best member back to where they began, through all that they were copied
    from; in the panels of the numbers it is the schedule that they were trained
    with, and the faint lines are what each member used.

    Args:
      results: of a sweep with a population, finished or running.
      metric: that the best member is best in; what trials are judged by, if not
        given.

    Returns:
      The matplotlib figure.
    """
    with styled():
        return _draw(results, metric or results.metric)


def _draw(results: Any, metric: str) -> Any:
    from matplotlib.collections import LineCollection
    from matplotlib.ticker import MaxNLocator

    exchanged, steps = results.lineage(), results.steps
    given = dict.fromkeys(name for one in exchanged for name in one.numbers)
    names = [name for name in given if np.unique(results.schedule(name)).size > 1]
    rows = -(-len(names) // COLUMNS)
    members = len(results.trials)
    tall = float(np.clip(0.09 * members, 1.6, 4.2))
    figure = new_figure(8.6, 0.9 + tall + 2.1 * rows)
    grid = figure.add_gridspec(1 + rows, COLUMNS, height_ratios=[tall, *[1.9] * rows])
    above = figure.add_subplot(grid[0, :])
    above.set_title(f"Population: {counts(results)}, {sum(_copies(exchanged)):,} copies")
    above.set_ylabel("member")
    above.yaxis.set_major_locator(MaxNLocator(integer=True))
    if not exchanged:
        above.set_axis_off()
        nothing(above, "no member has copied another yet")
        return figure
    # Report r ends at edges[r]; what holds in it is drawn from the edge before.
    edges = np.concatenate([[0], steps])
    made = np.isfinite(results.curves(metric)).sum(axis=1).max()
    every = range(members)
    above.hlines(list(every), 0, edges[made], color=FAINT, linewidth=0.7, alpha=0.6)
    arrows = [
        [(edges[one.report], one.source), (edges[one.report], one.trial)]
        for one, copied in zip(exchanged, _copies(exchanged))
        if copied
    ]
    above.add_collection(LineCollection(arrows, colors=STOPPED, linewidths=1.0, alpha=0.7))
    above.plot(
        [edges[one.report] for one, copied in zip(exchanged, _copies(exchanged)) if copied],
        [one.trial for one, copied in zip(exchanged, _copies(exchanged)) if copied],
        "o",
        color=STOPPED,
        markersize=3,
        label="copied another",
    )
    values = final_values(results, metric)
    signed = values if results.larger_is_better(metric) else -values
    best = int(np.nanargmax(signed)) if np.isfinite(signed).any() else 0
    line = ancestry(exchanged, best, len(steps))[:made]
    above.stairs(line, edges[: made + 1], baseline=None, color=INK, linewidth=1.8)
    above.plot([], [], color=INK, linewidth=1.8, label=f"the best, by\n{words(metric)}")
    above.plot([], [], color=DONE, alpha=0.5, label="what each used")
    above.set_ylim(members - 0.4, -0.6)
    above.set_xlim(0, steps[-1] * 1.01)
    above.grid(visible=False)
    above.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    for place, name in enumerate(names):
        axes = figure.add_subplot(grid[1 + place // COLUMNS, place % COLUMNS], sharex=above)
        used = results.schedule(name)[:, :made]
        log = is_log(results.specification["space"].get(name, {}), used[:, 0].tolist())
        for row in used:
            axes.stairs(row, edges[: made + 1], baseline=None, color=DONE, alpha=_faint(members))
        learned = results.schedule(name, trial=best)[:made]
        axes.stairs(learned, edges[: made + 1], baseline=None, color=INK, linewidth=1.8)
        if log:
            axes.set_yscale("log")
        axes.set_ylabel(NAMES.get(name, name) + ("\n(log scale)" if log else ""))
        if place >= len(names) - COLUMNS:
            axes.set_xlabel("training step")
    return figure


def _copies(exchanged: Any) -> list[bool]:
    return [one.source != one.trial for one in exchanged]


def _faint(members: int) -> float:
    return float(np.clip(6 / members, 0.08, 0.5))
