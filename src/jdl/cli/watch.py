"""Follows a running sweep from its folder: progress, lanes, the best trials so far."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jdl import sweep
from jdl.engine.events import ENDED
from jdl.engine.interrupt import Interrupt
from jdl.sweep import Results
from jdl.sweep.points import group_of, varying, words
from jdl.sweep.results import format_value

ROWS = 8  # of the best trials


def watch(
    folder: Path,
    console: Console,
    every: float = 1.0,
    rest: Callable[[float], None] = time.sleep,
) -> None:
    """Shows the run in `folder` until all of its trials have ended, or Ctrl-C.

    It also ends when the run has been interrupted, and says so. On a terminal the
    view is drawn in place; elsewhere a line is printed whenever more trials have ended.

    Args:
      folder: of the run.
      console: where to draw.
      every: seconds between updates.
      rest: waits for a number of seconds.

    Raises:
      StoreError: the folder holds no run.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    results = sweep.read(folder)
    said = -1
    drawn = Live(view(results), console=console, auto_refresh=False)
    with Interrupt(say, "The run itself goes on.") as interrupt:
        with drawn if console.is_terminal else contextlib.nullcontext():
            while True:
                if console.is_terminal:
                    drawn.update(view(results), refresh=True)
                elif _ended(results) > said:
                    said = _ended(results)
                    say(line(results))
                if _over(results):
                    return
                idle = not _in_use(results)
                rest(every)
                if interrupt.requested:
                    return
                results = sweep.read(folder)
                # Twice, since it may have ended between a look at its trials and one at its lock.
                if idle and not _in_use(results) and not _over(results):
                    break
        say("The run was interrupted.")


def view(results: Results) -> Group:
    """The view on a terminal: the counts, a bar, and the best trials so far."""
    statics, numbers = varying(results, static=True), varying(results, static=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("trial", "status", "step"):
        table.add_column(name, justify="left" if name == "status" else "right")
    if statics:
        table.add_column("program")
    for name in (*numbers, words(results.metric)):
        table.add_column(Text(name), justify="right")
    for trial in best_trials(results)[:ROWS]:
        cells = [str(trial.trial), results.says(trial.status), str(_step(results, trial.trial))]
        cells += [group_of(trial.config, statics)] if statics else []
        cells += [format_value(trial.config.get(name)) for name in numbers]
        style = {"done": "bold", "running": "", "stopped": "dim"}.get(trial.status, "dim")
        cells.append(format_value(trial.metrics[results.metric]))
        table.add_row(*map(Text, cells), style=style)
    bar = ProgressBar(total=max(1, len(results.trials)), completed=_ended(results), width=60)
    return Group(Text(line(results)), bar, table)


def line(results: Results) -> str:
    """The state of a run in one line."""
    total = len(results.trials)
    parts = [f"{_ended(results):,} of {total:,} trials"]
    parts += [f"{n:,} {s}" for s in ("stopped", "diverged") if (n := results.count(s))]
    running = results.count("running")
    if running and results.says("running") != "running":
        parts.append(f"{running} {results.says('running')}")
    elif running:
        parts.append(f"{running} of {max(running, _lanes(results))} lanes busy")
    if found := best_trials(results):
        value = format_value(found[0].metrics[results.metric])
        parts.append(f"best {words(results.metric)} {value} (trial {found[0].trial})")
    return " · ".join(parts)


def best_trials(results: Results) -> list[Any]:
    """The trials that have a finite value and did not diverge, the best first."""
    seen = [t for t in results.trials if t.status != "diverged" and results.score(t) > -math.inf]
    return sorted(seen, key=results.score, reverse=True)


def _step(results: Results, trial: int) -> int:
    import numpy as np

    reports = np.flatnonzero(np.isfinite(results.curves()[trial]))
    return int(results.steps[reports[-1]]) if reports.size else 0


def _lanes(results: Results) -> int:
    """The lanes that were seen in use, over all programs."""
    statics = varying(results, static=True)
    most: dict[str, int] = {}
    for trial, lane in results.lanes.of.items():
        label = group_of(results.trials[trial].config, statics)
        most[label] = max(most.get(label, 0), lane + 1)
    return sum(most.values())


def _ended(results: Results) -> int:
    return sum(trial.status in ENDED for trial in results.trials)


def _in_use(results: Results) -> bool:
    return results.says("running") != "interrupted"


def _over(results: Results) -> bool:
    return _ended(results) == len(results.trials)
