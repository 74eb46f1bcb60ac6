"""Early stopping: which trials go on, decided at reports while their neighbours train."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jdl._checks import check_number
from jdl.engine.loop import Stopping


def asha(reduction: float = 4.0, grace: int = 1) -> Stopping:
    """Asynchronous successive halving: a trial goes on while it is in the top 1/`reduction`.

    Decides after reports `grace`, `grace * reduction`, `grace * reduction ** 2`
    and so on. A trial is compared with those that came to the same rung before
    it, so nothing waits.

    Args:
      reduction: of how many trials one goes on, above 1.
      grace: reports that every trial may make, at least 1.

    Raises:
      ValueError: an argument is out of range.

    Source: Li et al. (2020), A System for Massively Parallel Hyperparameter
    Tuning, in the variant that stops trials and never pauses them.
    """
    check_number("reduction", reduction, "(1, inf)")
    check_number("grace", grace, "[1, inf)")
    seen: dict[int, dict[int, float]] = {}  # rung -> trial -> score

    def rungs(reports: int) -> list[int]:
        count = max(0, math.ceil(math.log(reports / grace, reduction))) if reports > grace else 0
        levels = {round(grace * reduction**i) for i in range(count + 1)}
        return sorted(level for level in levels if level < reports)

    def decide(rung: int, trials: Sequence[int], scores: Sequence[float]) -> list[bool]:
        here = seen.setdefault(rung, {})
        here.update(zip(trials, scores))
        best = sorted(here.values(), reverse=True)
        threshold = best[max(1, int(len(best) / reduction)) - 1]
        return [score < threshold for score in scores]

    return Stopping(rungs, decide, f"asha({reduction}, {grace})")
