"""`jdl sweep`: trains many networks as one program per optimizer."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from jdl.cli.options import Task, arg


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Train many networks at once and show which hyperparameters win.

    Without options: an MLP on hand-written digits, six optimizers x 30 learning
    rates x 4 seeds = 720 networks. Running the same command again resumes an
    interrupted sweep, or shows a finished one.

    Attributes:
      task: the model, the data and the length of training.
      optimizers: names of any optimizers in jdl.optim: sgd, momentum, nesterov, adagrad, rmsprop,
        adam, adamw, nadam, lion, muon, ...
      lr: the lowest and the highest learning rate, and how many, evenly spaced on a log scale.
      seeds: networks for each configuration, with different initial weights and batches.
      space: a TOML file of hyperparameters, as in: lr = {log_uniform = [1e-4, 1.0]},
        hidden = {choice = [32, 64]}, b1 = 0.8. Its entries replace or extend the options; any
        number that the optimizer takes may be an entry.
      search: grid tries everything; random draws --trials times (rates from the whole range); sobol
        does so too, but more evenly; auto is random if --trials is given.
      trials: how many networks a random or sobol search trains, seeds counted.
      stopping: asha, median, halving and hyperband end hopeless trials early; patience ends those
        that no longer improve.
      population: pbt lets the worst networks copy the best ones while all of them train, and
        changes the copies' numbers.
      target: a value of the metric that ends the whole sweep.
      seconds: a budget of time; the same command again resumes.
      out: the run's folder; by default one under runs/ named after this specification.
      devices: how many to use.
      lanes: networks side by side on each device; "tune" times a few widths first and remembers the
        best for this device and program.
      seed: the root of all random numbers.
      part: run only the k-th of n parts of the networks, for job arrays; jdl merge joins them, to
        the bit if --lanes is given.
      no_plot: draw no picture.
    """

    task: Task = dataclasses.field(default_factory=Task)
    optimizers: Annotated[tuple[str, ...], arg("NAME ...")] = (
        "sgd",
        "momentum",
        "nesterov",
        "adagrad",
        "rmsprop",
        "adam",
    )
    lr: Annotated[tuple[float, float, int], arg("LOW HIGH COUNT")] = (
        1e-5,
        10.0,
        30,
    )
    seeds: Annotated[int, arg("N")] = 4
    space: Annotated[Path | None, arg("FILE.toml", "(default: none)")] = None
    search: Literal["auto", "grid", "random", "sobol"] = "auto"
    trials: Annotated[int | None, arg("N", "(default: as many as the grid)")] = None
    stopping: Literal["none", "asha", "median", "halving", "hyperband", "patience"] = "none"
    population: Literal["none", "pbt"] = "none"
    target: Annotated[float | None, arg("VALUE", "(default: none)")] = None
    seconds: Annotated[float | None, arg("N", "(default: no limit)")] = None
    out: Annotated[Path | None, arg("FOLDER", "(default: under runs/)")] = None
    devices: Annotated[int | None, arg("N", "(default: all)")] = None
    lanes: Annotated[
        int | Literal["tune"] | None, arg("N|tune", "(default: chosen to suit the device)")
    ] = None
    seed: Annotated[int, arg("N")] = 0
    part: Annotated[str | None, arg("K/N", "(default: all)")] = None
    no_plot: bool = False

    def run(self) -> int:
        """Runs the sweep and shows what it found."""
        from jdl import sweep
        from jdl.cli import folder, summary, task
        from jdl.engine.devices import use_all_cores

        use_all_cores()
        part = _part(self.part)
        random = self.search in ("random", "sobol")
        random |= self.search == "auto" and self.trials is not None
        space = task.sweep_space(
            self.task,
            lr=self.lr,
            optimizers=self.optimizers,
            seeds=self.seeds,
            file=self.space,
            drawn=random,
        )
        dataset = task.load(self.task, space)
        make_trial = task.trial_maker(dataset)
        search = self.search if self.search != "auto" else "random" if random else None
        trials = self.trials
        if random and trials is None:
            trials = len(self.optimizers) * self.lr[2] * self.seeds
        epochs, batch_size = self.task.epochs, self.task.batch_size
        specification = {
            "space": sweep.to_json(space),
            "search": search,
            "trials": trials,
            "stopping": self.stopping,
            "population": self.population,
            "target": self.target,
            "epochs": epochs,
            "batch_size": batch_size,
            "seed": self.seed,
            **({"part": part} if part else {}),
        }
        names = [Path(self.task.data).stem, self.task.model]
        out = self.out or folder.default(names, specification, dataset)
        task.check(make_trial, space, dataset, self.task, trials)
        drawn = "Sobol" if search == "sobol" else "random"
        print(task.describe(self.task, dataset, space, trials, drawn), file=sys.stderr)
        fresh = not (out / "run.sqlite").exists()
        with folder.noted(out, {"data": self.task.data, "chance": task.chance(dataset)}):
            results = sweep.run(
                make_trial,
                space,
                dataset,
                trials=trials,
                epochs=epochs,
                batch_size=batch_size,
                search=search,
                stopping=_stopping(self.stopping),
                population=sweep.pbt() if self.population == "pbt" else None,
                target=self.target,
                seconds=self.seconds,
                seed=self.seed,
                out=out,
                devices=self.devices,
                lanes=self.lanes,
                part=part,
            )
        summary.show(results, out, fresh=fresh, plot=not self.no_plot)
        return 0


def _part(given: str | None) -> tuple[int, int] | None:
    """The numbers of `--part 3/16`."""
    if given is None:
        return None
    number, slash, of = given.partition("/")
    numbers = [int(text) for text in (number, of) if text.isascii() and text.isdecimal()]
    if not (slash and len(numbers) == 2 and 1 <= numbers[0] <= numbers[1]):
        raise ValueError(f"`--part` must be as 3/16: part 3 of 16, got --part {given}.")
    return numbers[0], numbers[1]


def _stopping(name: str) -> Any:
    from jdl import sweep

    rules = {
        "asha": sweep.asha,
        "median": sweep.median_stopping,
        "halving": sweep.successive_halving,
        "hyperband": sweep.hyperband,
        "patience": sweep.patience,
    }
    return None if name == "none" else rules[name]()
