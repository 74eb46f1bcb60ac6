"""`jdl report`: the table and the picture of a run, finished or still running."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from jdl.cli.options import arg


@dataclasses.dataclass(frozen=True)
class Report:
    """Show what a run has found so far: a table and a picture.

    Attributes:
      run_folder: the folder of a run of `jdl sweep`, `jdl train` or their Python functions.
      by: the hyperparameter along the picture's axis.
      metric: what to compare by.
      best: how many of the best trials to list as well.
      out: the picture's file.
      no_plot: draw no picture.
    """

    run_folder: Annotated[Path, tyro.conf.Positional, arg("RUN")]
    by: Annotated[str | None, arg("NAME", "(default: lr)")] = None
    metric: Annotated[str | None, arg("NAME", "(default: the sweep's)")] = None
    best: Annotated[int, arg("N")] = 0
    out: Annotated[Path | None, arg("FILE", "(default: a PNG in the folder)")] = None
    no_plot: bool = False

    def run(self) -> int:
        """Prints the report."""
        from jdl import sweep
        from jdl.cli import single, summary

        results = sweep.read(self.run_folder)
        if "space" not in results.specification:
            single.show(results, self.run_folder, plot=not self.no_plot, file=self.out)
            return 0
        known = dict.fromkeys(name for trial in results.trials for name in trial.metrics)
        if self.metric is not None and self.metric not in known:
            raise ValueError(f"`--metric` must be one of {', '.join(known)}, got {self.metric!r}.")
        space = results.specification["space"]
        if self.by is not None and self.by not in space:
            raise ValueError(f"`--by` must be one of {', '.join(space)}, got {self.by!r}.")
        if self.best:
            summary.show_trials(results, self.best, self.metric or results.metric)
        summary.show(
            results,
            self.run_folder,
            metric=self.metric,
            axis=self.by,
            plot=not self.no_plot,
            file=self.out,
        )
        return 0
