"""`jdl train`: one network, with the options of a sweep."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from jdl.cli.options import Task, arg

if TYPE_CHECKING:
    from jdl.sweep import Results


@dataclasses.dataclass(frozen=True)
class Train:
    """Train one network and show its curves.

    Running the same command again resumes an interrupted run, or shows a
    finished one.

    Attributes:
      task: what is trained, on what, for how long.
      optimizer: by name, any of jdl.optim.
      lr: the learning rate.
      out: the run's folder; if not given, one under runs/ whose name is this specification's own.
      seed: the root of all random numbers.
      no_plot: draw no picture.
    """

    task: Task = dataclasses.field(default_factory=Task)
    optimizer: Annotated[str, arg("NAME")] = "adam"
    lr: Annotated[float, arg("RATE")] = 3e-3
    out: Annotated[Path | None, arg("FOLDER", "(default: under runs/)")] = None
    seed: Annotated[int, arg("N")] = 0
    no_plot: bool = False

    def run(self) -> int:
        """Trains the network and shows how it went."""
        if not 0 < self.lr < math.inf:
            raise ValueError(f"`--lr` must be above 0 and finite, got {self.lr:g}.")
        from jdl import sweep, train
        from jdl.cli import folder, recipe

        space = {**recipe.model_space(self.task), "optimizer": self.optimizer, "lr": self.lr}
        parsed = sweep.parse_space({**space, "seed": sweep.seeds(1)})
        recipe.check_names(parsed)
        dataset = recipe.load(self.task, parsed)
        trial = recipe.trial_maker(dataset)(space)
        epochs, batch_size = self.task.epochs, self.task.batch_size
        specification = {
            **space,
            "data": self.task.data,
            "epochs": epochs,
            "batch_size": batch_size,
            "seed": self.seed,
        }
        names = [Path(self.task.data).stem, self.task.model, self.optimizer]
        out = self.out or folder.default(names, specification, dataset, recipe.make_trial)
        print(recipe.describe_one(self.task, dataset, parsed), file=sys.stderr)
        # `fit` is given a trial and cannot see its rate, so the folder's note is compared here.
        with folder.noted(out, specification, same=[*specification]):
            train.fit(trial, dataset, epochs=epochs, batch_size=batch_size, seed=self.seed, out=out)
        show_folder(out, sweep.read(out), None, plot=not self.no_plot)
        return 0


def show_folder(out: Path, results: Results, file: Path | None, *, plot: bool) -> None:
    """Prints the last and the best report of the run in `out`, and draws its curves."""
    import numpy as np
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from jdl.cli import folder, picture
    from jdl.plot import curves_figure
    from jdl.plot.style import words
    from jdl.sweep.results import format_value

    console = Console(highlight=False)

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False)

    (trial,) = results.trials
    metric, goal = results.metric, results.specification["goal"]
    names = [name for name in trial.metrics if not name.startswith("test_")]
    curves = {name: results.curves(name)[0] for name in names}
    reports = int(np.isfinite(curves[metric]).sum())
    if reports:
        judged = curves[metric] if goal == "max" else -curves[metric]
        best = int(np.nanargmax(judged))
        title = f"Judged by {words(metric)}"
        table = Table("", "best", "last", title=title, title_style="", title_justify="left")
        table.box, table.pad_edge = box.SIMPLE_HEAD, False
        table.add_row("step", str(results.steps[best]), str(results.steps[reports - 1]))
        for name in names:
            table.add_row(
                words(name), *(format_value(float(curves[name][i])) for i in (best, reports - 1))
            )
        for name in (name for name in trial.metrics if name.startswith("test_")):
            table.add_row(words(name), "", format_value(trial.metrics[name]))
        console.print(table)
    if trial.status == "diverged":
        steps = f"{trial.steps} step{'s' * (trial.steps != 1)}"
        say(f"The run diverged after {steps}: a lower rate may help.")
    elif trial.status != "done":
        say(f"The run is {trial.status}, after {reports} reports.")
    say(f"run:     {out}")
    if not plot or not reports:
        return
    path = file or out / "curves.png"
    epochs = folder.read_note(out).get("epochs")
    per_epoch = results.specification["steps"] // epochs if epochs else 0
    kept = int(results.steps[best])
    say(picture.save(lambda: curves_figure(results.steps, curves, kept, per_epoch), path, out))
