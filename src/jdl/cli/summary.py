"""Prints the results of a sweep: the best of each program, its folder and its picture."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jdl.cli import folder, picture
from jdl.plot import sweep_figure, write_report
from jdl.sweep import Results, Summary
from jdl.sweep.points import averaged, group_of, repeated, varying, words
from jdl.sweep.results import format_value

PROGRAMS = 40  # rows of the table


def show(
    results: Results,
    out: Path | None,
    *,
    fresh: bool = False,
    metric: str | None = None,
    axis: str | None = None,
    plot: bool = True,
    file: Path | None = None,
) -> None:
    """Prints the table of the best configurations, and where the files are.

    Args:
      results: of a sweep, finished or running.
      out: its folder.
      fresh: whether it ran in one go, so that its seconds cover all trials.
      metric: the metric to compare by; by default that of the goal.
      axis: the hyperparameter along the picture's axis; by default the rate.
      plot: whether to draw the picture.
      file: of the picture; by default in the folder.
    """
    screen = console()
    metric = metric or results.metric
    best = best_of_each(results, metric)
    screen.print(_table(results, best, metric))
    for text in (_counts(results, fresh), *_edges(results, best)):
        screen.print(text, markup=False)
    if out is None:
        return
    _say(screen, f"run:     {out}")
    axis = axis or default_axis(results)
    if not plot or axis is None:
        return
    chance = folder.read_note(out).get("chance") if "accuracy" in metric else None
    path = file or out / f"{axis}.png"
    _say(screen, picture.save(lambda: sweep_figure(results, axis, metric, chance), path, out))


def say_report(results: Results, out: Path, metric: str | None = None) -> None:
    """Writes the report's page and pictures into the run's folder, and says where."""
    with contextlib.suppress(ModuleNotFoundError):  # the picture has already reported that
        files = write_report(results, out / "report", metric)
        _say(console(), f"report:  {files[0]}")


def show_trials(results: Results, count: int, metric: str) -> None:
    """Prints the best `count` trials, one row each, without columns that never vary."""
    statics, numbers = varying(results, static=True), varying(results, static=False)
    configs = [*statics, *numbers, *filter(None, [results.seed_name])]
    test = test_metric(results, metric)
    sign = 1 if results.larger_is_better(metric) else -1
    ranked = sorted(
        (t for t in results.trials if math.isfinite(t.metrics.get(metric, math.nan))),
        key=lambda t: -sign * t.metrics[metric],
    )
    title = Text(f"The best trials by {words(metric)}")
    table = Table(title=title, title_style="", title_justify="left")
    table.box, table.pad_edge = box.SIMPLE_HEAD, False
    for name in ("trial", "status", *configs, metric, *filter(None, [test])):
        heading = words(name).replace(" ", "\n")
        justify: Any = "left" if name in ("status", *statics) else "right"
        table.add_column(Text(heading), justify=justify, overflow="fold")
    for trial in ranked[:count]:
        values = [trial.config.get(n) for n in configs]
        values += [trial.metrics.get(m, math.nan) for m in (metric, test) if m]
        status = results.says(trial.status)
        table.add_row(str(trial.trial), status, *(Text(format_value(v)) for v in values))
    console().print(table)


def test_metric(results: Results, metric: str) -> str | None:
    """The test metric that corresponds to `metric`, or None if there is no other."""
    test = "test_" + metric.partition("_")[2]
    known = any(test in trial.metrics for trial in results.trials)
    return test if known and test != metric else None


def console() -> Console:
    """Standard output, as wide as its terminal, or wide enough for a table without one."""
    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=160)


def best_of_each(results: Results, metric: str) -> list[Summary]:
    """The best configuration of each static group, the best group first."""
    statics = varying(results, static=True)
    best: dict[str, Summary] = {}
    for summary in results.configurations(metric):
        best.setdefault(group_of(summary.config, statics), summary)
    return list(best.values())


def default_axis(results: Results) -> str | None:
    """The hyperparameter to draw against: the rate if it varies, else the first that does."""
    names = [*varying(results, static=False), *varying(results, static=True)]
    return "lr" if "lr" in names else next(iter(names), None)


def _table(results: Results, best: list[Summary], metric: str) -> Table:
    statics, numbers = varying(results, static=True), varying(results, static=False)
    test = test_metric(results, metric)
    test_of = {tuple(s.trials): s for s in results.configurations(test)} if test else {}
    table = Table(
        title=Text(f"The best of each by {words(metric)}{averaged(results, best)}"),
        title_style="",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in statics:
        table.add_column(Text(name), overflow="fold")
    for name in numbers:
        table.add_column(Text(f"best\n{name}"), justify="right")
    table.add_column(Text(words(metric).replace(" ", "\n")), justify="right")
    if test:
        table.add_column(Text(words(test).replace(" ", "\n")), justify="right")
    table.add_column(f"{repeated(results)}\ndone", justify="right")
    table.add_column("diverged", justify="right")
    ended = _status_by_group(results, statics)
    for row, summary in enumerate(best[:PROGRAMS]):
        config = summary.config
        total, diverged = ended[group_of(config, statics)]
        found = not math.isnan(summary.mean)
        cells = [format_value(config.get(n)) for n in statics]
        cells += [format_value(config.get(n)) if found else "-" for n in numbers]
        cells.append(_spread(summary))
        if test:
            cells.append(_spread(test_of[tuple(summary.trials)]))
        cells += [f"{summary.done}/{len(summary.trials)}", f"{diverged}/{total}"]
        table.add_row(*map(Text, cells), style="bold" if row == 0 and found else "")
    if len(best) > PROGRAMS:
        table.caption = f"and {len(best) - PROGRAMS} more"
    return table


def _status_by_group(results: Results, statics: list[str]) -> dict[str, tuple[int, int]]:
    counts: dict[str, tuple[int, int]] = {}
    for trial in results.trials:
        label = group_of(trial.config, statics)
        total, diverged = counts.get(label, (0, 0))
        counts[label] = total + 1, diverged + (trial.status == "diverged")
    return counts


def _spread(summary: Summary) -> str:
    if math.isnan(summary.mean):
        return "-"
    if math.isnan(summary.stderr):
        return f"{summary.mean:.4g}"
    return f"{summary.mean:.4f} ± {summary.stderr:.4f}"


def _counts(results: Results, fresh: bool) -> str:
    total = len(results.trials)
    states = ("done", "diverged", "stopped", "running", "pending")
    counts = [f"{n:,} {results.says(state)}" for state in states if (n := results.count(state))]
    text = f"{total:,} trials: {', '.join(counts)}."
    if part := results.specification.get("part"):
        text = f"Part {part['number']} of {part['of']}, {text} `jdl merge` joins the parts."
    if results.says("running") == "interrupted" and not results.complete:
        text += " The run is not complete: run the same again to go on."
    if seconds := results.stats.get("seconds"):
        text += f" {_programs(results.stats)}, {seconds:.1f} s"
        text += f", {total / seconds:.1f} trials/s." if fresh else " in its last session."
    return text


def _programs(stats: Mapping[str, Any]) -> str:
    """How many programs were compiled, and how many were found in the cache."""
    compiled, found = stats["compilations"], stats.get("found", 0)
    text = f"{compiled} program{'s' * (compiled != 1)} compiled"
    return f"{text}, {found} found in the cache" if found else text


def _edges(results: Results, best: list[Summary]) -> list[str]:
    """Hints if the best value of a number is the lowest or the highest that was tried."""
    if not best or math.isnan(best[0].mean):
        return []
    hints = []
    config = best[0].config
    label = group_of(config, varying(results, static=True))
    for name in varying(results, static=False):
        values = sorted({t.config[name] for t in results.trials if name in t.config})
        if name not in config:
            continue
        for end, word in ((values[0], "lowest"), (values[-1], "highest")):
            if config[name] == end and len(values) > 2:
                hints.append(
                    f"The best {name} is the {word} that was tried"
                    f"{f' ({label})' if label else ''}. Widen the range."
                )
    return hints


def _say(screen: Console, text: str) -> None:
    screen.print(text, soft_wrap=True, markup=False)
