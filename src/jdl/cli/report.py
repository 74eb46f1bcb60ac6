"""`jdl report`: the table, the pictures and the page of a run, finished or still running."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from jdl.cli.options import arg


@dataclasses.dataclass(frozen=True)
class Report:
    """Show the results of a run so far as a table, as pictures and as one HTML page.

    The page, which sorts and filters every trial, and its pictures (learning
    curves, slices, importance, parallel coordinates, a pair of hyperparameters,
    rungs, lanes) are written to `report/` in the run's folder.

    Attributes:
      run_folder: the folder of a run of `jdl sweep`, `jdl train` or their Python functions.
      by: the hyperparameter along the picture's axis.
      metric: the metric to compare by.
      best: how many of the best trials to list as well.
      out: the file of the picture along the axis.
      no_plot: draw no picture and write no page.
      watch: first follow a running sweep until it ends, with progress, lanes and the best trials.
      optuna: also write the sweep as an Optuna study to this SQLite file.
      tensorboard: also write the trials for TensorBoard's HParams to this folder.
    """

    run_folder: Annotated[Path, tyro.conf.Positional, arg("RUN")]
    by: Annotated[str | None, arg("NAME", "(default: lr)")] = None
    metric: Annotated[str | None, arg("NAME", "(default: the sweep's)")] = None
    best: Annotated[int, arg("N")] = 0
    out: Annotated[Path | None, arg("FILE", "(default: a PNG in the folder)")] = None
    no_plot: bool = False
    watch: bool = False
    optuna: Annotated[Path | None, arg("FILE", "(default: none)")] = None
    tensorboard: Annotated[Path | None, arg("FOLDER", "(default: none)")] = None

    def run(self) -> int:
        """Prints the report."""
        from jdl import sweep
        from jdl.cli import run_report, summary, watch

        results = sweep.read(self.run_folder)
        if "space" not in results.specification:
            run_report.show(results, self.run_folder, plot=not self.no_plot, file=self.out)
            return 0
        known = dict.fromkeys(name for trial in results.trials for name in trial.metrics)
        if self.metric is not None and self.metric not in known:
            raise ValueError(f"`--metric` must be one of {', '.join(known)}, got {self.metric!r}.")
        space = results.specification["space"]
        if self.by is not None and self.by not in space:
            raise ValueError(f"`--by` must be one of {', '.join(space)}, got {self.by!r}.")
        if self.watch:
            watch.watch(self.run_folder, summary.console())
            results = sweep.read(self.run_folder)
        if self.best:
            summary.show_trials(results, self.best, self.metric or results.metric)
        try:
            self._show(summary, results)
        except OSError as error:
            raise OSError(
                f"{error.filename} cannot be written: {error.strerror}. --no-plot shows only the "
                "table."
            ) from error
        if self.optuna is not None:
            results.to_optuna(self.optuna)
            print(f"study:   {self.optuna}")
        if self.tensorboard is not None:
            results.to_tensorboard(self.tensorboard)
            print(f"runs:    {self.tensorboard}")
        return 0

    def _show(self, summary: Any, results: Any) -> None:
        summary.show(
            results,
            self.run_folder,
            metric=self.metric,
            axis=self.by,
            plot=not self.no_plot,
            file=self.out,
        )
        if not self.no_plot:
            summary.say_report(results, self.run_folder, self.metric)
