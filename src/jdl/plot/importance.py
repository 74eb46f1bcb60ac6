"""Which hyperparameters matter: the share of the metric's variation that each explains alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jdl.plot.columns import (
    column,
    final_values,
    has_status,
    nothing,
    varying_names,
)
from jdl.plot.forest import grow_forest, main_effects, ranks
from jdl.plot.style import DONE, FAINT, new_figure, styled
from jdl.sweep.points import words

FEWEST = 12  # ended trials, below which a forest says nothing


class Importance(NamedTuple):
    """How much one hyperparameter matters.

    Attributes:
      name: the hyperparameter's.
      share: of the variance of the metric's rank that it explains alone, the mean over trees.
      spread: its standard deviation over trees.
    """

    name: str
    share: float
    spread: float


def importances(results: Any, metric: str | None = None, seed: int = 0) -> list[Importance]:
    """The importance of each hyperparameter that varies, the greatest first.

    A random forest learns the rank of the final metric (a trial that diverged is
    the worst); functional ANOVA says which share of the forest's variance each
    hyperparameter explains alone. Shares do not sum to one: the rest is
    interactions. Ranks, because a handful of hopeless trials would otherwise be
    all that there is to explain.

    Args:
      results: of a sweep.
      metric: any that is reported; what trials are judged by, if not given.
      seed: of the forest.

    Returns:
      One entry for each hyperparameter, and one named "" for a column of noise
      that the forest was given beside them: what matters less does not matter.
      Empty where fewer than twelve trials ended or nothing varies.

    Source: Hutter, Hoos and Leyton-Brown (2014).
    """
    metric = metric or results.metric
    values = final_values(results, metric)
    ended = np.isfinite(values) | has_status(results, "diverged")
    names = varying_names(results)
    if ended.sum() < FEWEST or not names or np.unique(values[ended]).size < 2:
        return []
    sign = 1.0 if results.larger_is_better(metric) else -1.0
    target = ranks(sign * values[ended])
    # A missing hyperparameter stands apart from every value.
    x = np.column_stack([np.nan_to_num(column(results, n).at[ended], nan=-0.5) for n in names])
    noise = np.random.default_rng(seed).permutation(len(x)) / len(x)
    x = np.column_stack([x, noise])
    effects = main_effects(grow_forest(x, target, seed=seed), x, seed)
    found = [
        Importance(name, float(share), float(spread))
        for name, share, spread in zip([*names, ""], effects.mean(0), effects.std(0))
    ]
    return sorted(found, key=lambda i: -i.share)


def importance_figure(results: Any, metric: str | None = None) -> Any:
    """Draws `importances` as bars, with what a column of noise gets as a line.

    Args:
      results: of a sweep, finished or running.
      metric: any that is reported; what trials are judged by, if not given.

    Returns:
      The matplotlib figure.
    """
    metric = metric or results.metric
    found = importances(results, metric)
    bars = [i for i in found if i.name]
    with styled():
        figure = new_figure(7.0, 1.7 + 0.34 * max(3, len(bars)))
        axes = figure.add_subplot()
        axes.set_title(f"Importance for the {words(metric)}")
        axes.set_xlabel("share of the variance of its rank explained alone\n(functional ANOVA)")
        if not bars:
            axes.set_xlim(0, 1)
            axes.set_yticks([])
            nothing(axes, f"needs {FEWEST} trials that ended, and something that varies")
            return figure
        places = np.arange(len(bars))
        shares = [i.share for i in bars]
        # A spread is cut at zero, below which no share can be.
        low = [min(i.share, i.spread) for i in bars]
        axes.barh(places, shares, color=DONE, height=0.62)
        axes.errorbar(
            shares,
            places,
            xerr=[low, [i.spread for i in bars]],
            fmt="none",
            ecolor="#333333",
            elinewidth=1,
            capsize=2.5,
        )
        end = max(i.share + i.spread for i in bars)
        for place, i in zip(places, bars):
            axes.text(i.share + i.spread + 0.015 * end, place, f"{i.share:.2f}", va="center")
        (noise,) = [i.share for i in found if not i.name]
        axes.axvline(noise, color=FAINT, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.text(
            noise,
            -0.62,
            " noise",
            color="#6a6a6a",
            fontsize=8.5,
            va="bottom",
        )
        axes.set_yticks(places, [i.name for i in bars])
        axes.set_ylim(len(bars) - 0.4, -0.95)
        axes.set_xlim(0, 1.12 * end)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        return figure
