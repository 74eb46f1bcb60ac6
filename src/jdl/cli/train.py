"""`jdl train`: one network, with the options of a sweep."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Annotated

from jdl.cli.options import Task, arg


@dataclasses.dataclass(frozen=True)
class Train:
    """Train one network and show its curves.

    Running the same command again resumes an interrupted run, or shows a
    finished one.

    Attributes:
      task: the model, the data and the length of training.
      optimizer: the name of any optimizer in jdl.optim.
      lr: the learning rate.
      out: the run's folder; by default one under runs/ named after this specification.
      seed: the root of all random numbers.
      patience: stop after this many epochs in a row without a new best.
      ema: also evaluate an exponential average of the parameters with this decay, such as 0.99.
      devices: split each batch over this many devices.
      tensorboard: also write the curves to this folder for TensorBoard.
      no_plot: draw no picture.
    """

    task: Task = dataclasses.field(default_factory=Task)
    optimizer: Annotated[str, arg("NAME")] = "adam"
    lr: Annotated[float, arg("RATE")] = 3e-3
    out: Annotated[Path | None, arg("FOLDER", "(default: under runs/)")] = None
    seed: Annotated[int, arg("N")] = 0
    patience: Annotated[int | None, arg("N", "(default: to the end)")] = None
    ema: Annotated[float | None, arg("DECAY", "(default: none)")] = None
    devices: Annotated[int, arg("N")] = 1
    tensorboard: Annotated[Path | None, arg("FOLDER", "(default: none)")] = None
    no_plot: bool = False

    def run(self) -> int:
        """Trains the network and shows how it went."""
        if not 0 < self.lr < math.inf:
            raise ValueError(f"`--lr` must be above 0 and finite, got {self.lr:g}.")
        from jdl import optim, sweep, train
        from jdl.cli import folder, run_report, task

        space = {**task.model_space(self.task), "optimizer": self.optimizer, "lr": self.lr}
        parsed = sweep.parse_space({**space, "seed": sweep.seeds(1)})
        task.check_names(parsed)
        dataset = task.load(self.task, parsed)
        trial = task.trial_maker(dataset)(space)
        if self.ema is not None:
            trial = train.averaged(trial, {"ema": optim.parameter_ema(self.ema)})
        epochs, batch_size = self.task.epochs, self.task.batch_size
        specification = {
            **space,
            "data": self.task.data,
            "epochs": epochs,
            "batch_size": batch_size,
            "seed": self.seed,
        }
        extras = {"patience": self.patience, "ema": self.ema}
        specification |= {name: value for name, value in extras.items() if value is not None}
        names = [Path(self.task.data).stem, self.task.model, self.optimizer]
        out = self.out or folder.default(names, specification, dataset)
        print(task.describe_one(self.task, dataset, parsed), file=sys.stderr)
        # `fit` only sees that the program's hash differs; the note says which option does.
        with folder.noted(out, specification, same=[*specification]):
            train.fit(
                trial,
                dataset,
                epochs=epochs,
                batch_size=batch_size,
                seed=self.seed,
                patience=self.patience,
                devices=self.devices,
                callbacks=[train.tensorboard(self.tensorboard)] if self.tensorboard else [],
                out=out,
            )
        run_report.show(sweep.read(out), out, plot=not self.no_plot)
        return 0
