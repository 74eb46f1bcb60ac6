"""Every picture of a sweep, by name, in the order in which a reader needs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jdl.plot.importance import importance_figure
from jdl.plot.pair import pair_figure
from jdl.plot.parallel import parallel_figure
from jdl.plot.population import population_figure
from jdl.plot.rungs import rungs_figure
from jdl.plot.slices import slice_figure
from jdl.plot.timeline import timeline_figure
from jdl.plot.trials import learning_curves_figure
from jdl.sweep.points import words


def report_figures(results: Any, metric: str | None = None) -> dict[str, tuple[Any, str]]:
    """Draws the pictures of a report.

    Args:
      results: of a sweep, finished or running.
      metric: any that is reported; what trials are judged by, if not given.

    Returns:
      The matplotlib figure, and what it shows in a sentence, by name: curves,
      population, slices, importance, parallel, pair, rungs, lanes.
    """
    name = metric or results.metric
    what = words(name)
    stopped = results.count("stopped") > 0
    makers: dict[str, tuple[Callable[[], Any], str]] = {
        "curves": (
            lambda: learning_curves_figure(results, name),
            f"The {what} of every trial, report by report, and how each ended.",
        ),
        "population": (
            lambda: population_figure(results, name),
            "Who copied whom, and the schedule of each number that the population came to; the "
            "numbers in the other pictures are those at the end.",
        ),
        "slices": (
            lambda: slice_figure(results, name),
            f"The final {what} of every trial against each hyperparameter.",
        ),
        "importance": (
            lambda: importance_figure(results, name),
            "How much of the variation each hyperparameter explains alone, by functional ANOVA "
            "(Hutter, Hoos and Leyton-Brown, 2014) of a random forest.",
        ),
        "parallel": (
            lambda: parallel_figure(results, name),
            f"Every trial as a line through its hyperparameters to its {what}.",
        ),
        "pair": (
            lambda: pair_figure(results, metric=name),
            f"The {what} over the two numbers that matter most.",
        ),
        "rungs": (
            lambda: rungs_figure(results, name),
            "How many trials came how far, and who was stopped where.",
        ),
        "lanes": (
            lambda: timeline_figure(results),
            "Which trial ran in which lane when; white is idle.",
        ),
    }
    if not results.specification.get("population"):
        del makers["population"]
    if not stopped:
        del makers["rungs"]
    if not len(results.lanes.segments):
        del makers["lanes"]
    return {key: (make(), text) for key, (make, text) in makers.items()}
