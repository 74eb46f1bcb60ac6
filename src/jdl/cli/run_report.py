"""Prints the best and the last report of one training run, and draws its curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from jdl.cli import folder, picture
from jdl.cli.summary import console
from jdl.plot import curves_figure
from jdl.sweep import Results
from jdl.sweep.points import words
from jdl.sweep.results import format_value


def show(results: Results, out: Path, *, plot: bool = True, file: Path | None = None) -> None:
    """Prints the best and the last report of a run and draws its curves.

    Args:
      results: of one trial, as `sweep.read` gives them for a folder of `train.fit`.
      out: that folder.
      plot: whether to draw the picture.
      file: of the picture; by default in the folder.
    """
    screen = console()

    def say(text: str) -> None:
        screen.print(text, soft_wrap=True, markup=False)

    (trial,) = results.trials
    metric = results.metric
    names = [name for name in trial.metrics if not name.startswith("test_")]
    curves = {name: results.curves(name)[0] for name in names}
    reports = int(np.isfinite(curves[metric]).sum())
    if reports:
        best = int(np.argmax(results.goal.scores(curves[metric])))
        title = f"Judged by {words(metric)}"
        table = Table("", "best", "last", title=title, title_style="", title_justify="left")
        table.box, table.pad_edge = box.SIMPLE_HEAD, False
        table.add_row("step", str(results.steps[best]), str(results.steps[reports - 1]))
        for name in names:
            table.add_row(
                words(name), *(format_value(float(curves[name][i])) for i in (best, reports - 1))
            )
        if folder.read_note(out).get("model") in ("transformer", "lstm"):
            # From the mean loss, because a mean of perplexities would be another number.
            for name in (name for name in names if name.endswith("_loss")):
                values = (format_value(float(np.exp(curves[name][i]))) for i in (best, reports - 1))
                table.add_row(words(name.replace("loss", "perplexity")), *values)
        for name in (name for name in trial.metrics if name.startswith("test_")):
            table.add_row(words(name), "", format_value(trial.metrics[name]))
        screen.print(table)
    if trial.status == "diverged":
        steps = f"{trial.steps} step{'s' * (trial.steps != 1)}"
        say(f"The run diverged after {steps}. A lower rate may help.")
    elif trial.status == "stopped":
        say(f"Stopped early after {trial.steps} steps, because reports no longer improved.")
    elif trial.status != "done":
        say(f"The run has not ended; it has made {reports} of {len(results.steps)} reports.")
    say(f"run:     {out}")
    if not plot or not reports:
        return
    path = file or out / "curves.png"
    epochs = folder.read_note(out).get("epochs")
    per_epoch = results.specification["steps"] // epochs if epochs else 0
    kept = int(results.steps[best])
    say(picture.save(lambda: curves_figure(results.steps, curves, kept, per_epoch), path, out))
