"""What a sweep found, as a person reads it: the best of each program, a folder, a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from jdl.cli import folder, picture
from jdl.plot import sweep_figure
from jdl.plot.style import words
from jdl.plot.sweep import group_label, varying
from jdl.sweep import Results, Summary
from jdl.sweep.results import format_value

PROGRAMS = 40  # rows of the table


def show(
    results: Results,
    out: Path | None,
    *,
    metric: str | None = None,
    axis: str | None = None,
    plot: bool = True,
    file: Path | None = None,
) -> None:
    """Prints the table of the best configurations and where everything lies.

    Args:
      results: of a sweep, finished or running.
      out: its folder.
      metric: what to compare by; what trials were judged by, if not given.
      axis: the hyperparameter along the picture's axis; the rate, if not given.
      plot: whether to draw the picture.
      file: of the picture; in the folder, if not given.
    """
    console = Console(highlight=False)
    metric = metric or results.metric
    best = best_of_each(results, metric)
    console.print(_table(results, best, metric))
    _say(console, _counts(results))
    for hint in _edges(results, best):
        _say(console, hint)
    if out is None:
        return
    _say(console, f"run:     {out}")
    axis = axis or default_axis(results)
    if not plot or axis is None:
        return
    chance = folder.read_note(out).get("chance") if "accuracy" in metric else None
    path = file or out / f"{axis}.png"
    _say(console, picture.save(lambda: sweep_figure(results, axis, metric, chance), path, out))


def best_of_each(results: Results, metric: str) -> list[Summary]:
    """The best configuration of each static group, the best group first."""
    statics = varying(results, static=True)
    best: dict[str, Summary] = {}
    for summary in results.configurations(metric):
        best.setdefault(group_label({n: summary.config[n] for n in statics}), summary)
    return list(best.values())


def default_axis(results: Results) -> str | None:
    """The hyperparameter to draw against: the rate if it varies, else the first that does."""
    names = [*varying(results, static=False), *varying(results, static=True)]
    return "lr" if "lr" in names else next(iter(names), None)


def _table(results: Results, best: list[Summary], metric: str) -> Table:
    statics, numbers = varying(results, static=True), varying(results, static=False)
    test = metric.replace("valid_", "test_").replace("train_", "test_")
    tested = test != metric and any(test in trial.metrics for trial in results.trials)
    test_of = {tuple(s.trials): s for s in results.configurations(test)} if tested else {}
    seeds = max((len(s.trials) for s in best), default=1)
    spread = f", mean ± standard error over {seeds} seeds" if seeds > 1 else ""
    table = Table(
        title=f"The best of each by {words(metric)}{spread}",
        title_style="",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in statics:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(f"best\n{name}", justify="right", no_wrap=True)
    table.add_column(words(metric).replace(" ", "\n"), justify="right", no_wrap=True)
    if tested:
        table.add_column(words(test).replace(" ", "\n"), justify="right", no_wrap=True)
    table.add_column("seeds\ndone", justify="right")
    table.add_column("diverged", justify="right", no_wrap=True)
    ended = _status_by_group(results, statics)
    for row, summary in enumerate(best[:PROGRAMS]):
        config = summary.config
        total, diverged = ended[group_label({n: config[n] for n in statics})]
        cells = [format_value(config[n]) for n in (*statics, *numbers)]
        cells.append(_spread(summary))
        if tested:
            cells.append(_spread(test_of[tuple(summary.trials)]))
        cells += [f"{summary.done}/{len(summary.trials)}", f"{diverged}/{total}"]
        table.add_row(*cells, style="bold" if row == 0 and not math.isnan(summary.mean) else "")
    if len(best) > PROGRAMS:
        table.caption = f"and {len(best) - PROGRAMS} more"
    return table


def _status_by_group(results: Results, statics: list[str]) -> dict[str, tuple[int, int]]:
    counts: dict[str, tuple[int, int]] = {}
    for trial in results.trials:
        label = group_label({n: trial.config[n] for n in statics})
        total, diverged = counts.get(label, (0, 0))
        counts[label] = total + 1, diverged + (trial.status == "diverged")
    return counts


def _spread(summary: Summary) -> str:
    if math.isnan(summary.mean):
        return "-"
    if math.isnan(summary.stderr):
        return f"{summary.mean:.4g}"
    return f"{summary.mean:.4f} ± {summary.stderr:.4f}"


def _counts(results: Results) -> str:
    total = len(results.trials)
    states = ("done", "diverged", "stopped", "running", "pending")
    counts = [f"{n:,} {state}" for state in states if (n := results.count(state))]
    text = f"{total:,} trials: {', '.join(counts)}."
    if seconds := results.stats.get("seconds"):
        text += (
            f" {results.compilations} programs compiled; {seconds:.1f} s, {total / seconds:.1f} "
            "trials/s."
        )
    return text


def _edges(results: Results, best: list[Summary]) -> list[str]:
    """Hints where the best value of a number lies at the end of what was tried."""
    if not best or math.isnan(best[0].mean):
        return []
    hints = []
    config = best[0].config
    label = group_label({n: config[n] for n in varying(results, static=True)})
    for name in varying(results, static=False):
        values = sorted({trial.config[name] for trial in results.trials})
        for end, word in ((values[0], "lowest"), (values[-1], "highest")):
            if config[name] == end and len(values) > 2:
                hints.append(
                    f"The best {name} is the {word} that was tried"
                    f"{f' ({label})' if label else ''}: go further."
                )
    return hints


def _say(console: Any, text: str) -> None:
    console.print(text, soft_wrap=True, markup=False)
