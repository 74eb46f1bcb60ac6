"""`jdl check`: looks for faults in data, model, gradient and rate before a long training."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from jdl.cli.options import Task, arg

if TYPE_CHECKING:
    from jdl.diagnose import Report


@dataclasses.dataclass(frozen=True)
class Check:
    """Find in seconds what would keep a network from training, before it trains.

    Checks the data, the initialisation, the gradient, random keys, evaluation,
    the learning rate and a short run, of a model by name or of your own trial.
    The exit code is 1 if something is wrong; suspicious findings are only printed.

    Attributes:
      task: the model and the data; epochs do not matter here.
      optimizer: the name of any optimizer in jdl.optim.
      lr: the learning rate to judge.
      trial: your own, as package.module:function. The function returns a Trial; if it takes an
        argument, that is a dict with "lr", as in `sweep.run`.
      json: print the report as JSON.
      out: the picture's file.
      seed: the root of all random numbers.
      no_plot: draw no picture.
    """

    task: Task = dataclasses.field(default_factory=Task)
    optimizer: Annotated[str, arg("NAME")] = "adam"
    lr: Annotated[float, arg("RATE")] = 3e-3
    trial: Annotated[str | None, arg("MODULE:FUNCTION", "(default: the model by name)")] = None
    json: bool = False
    out: Annotated[Path, arg("FILE")] = Path("check.png")
    seed: Annotated[int, arg("N")] = 0
    no_plot: bool = False

    def run(self) -> int:
        """Runs all checks and prints what they found."""
        if not 0 < self.lr < math.inf:
            raise ValueError(f"`--lr` must be above 0 and finite, got {self.lr:g}.")
        from jdl import diagnose, sweep
        from jdl.cli import picture, task
        from jdl.cli.summary import console
        from jdl.plot import check_figure

        start = time.perf_counter()
        space = {**task.model_space(self.task), "optimizer": self.optimizer, "lr": self.lr}
        parsed = sweep.parse_space({**space, "seed": sweep.seeds(1)})
        penalty = None
        if self.trial is None:
            task.check_names(parsed)
        dataset = task.load(self.task, parsed)
        rate: float | None = self.lr
        if self.trial is None:
            by_name = task.trial_maker(dataset)

            def made(lr: Any) -> Any:
                return by_name({**space, "lr": lr})

            plain = {name: value for name, value in space.items() if name != "l2"}
            penalty = by_name(plain), by_name({**plain, "l2": self.task.l2 or 1e-3})
            trial: Any = made
        else:
            trial, rate = _own(self.trial, self.lr)
        with _asked(self.trial):
            report = diagnose.examine(
                trial,
                dataset,
                rate=rate,
                penalty=penalty,
                batch_size=self.task.batch_size,
                seed=self.seed,
                say=lambda check: print(f"\r{check:<32}", end="", file=sys.stderr, flush=True),
            )
        print("\r" + " " * 32 + "\r", end="", file=sys.stderr)
        drawn = None
        if not self.no_plot:
            drawn = picture.save(lambda: check_figure(report), self.out, None)
        seconds = time.perf_counter() - start
        if self.json:
            print(json.dumps(as_json(report), indent=1))
        else:
            screen = console()
            for line in lines(report, seconds):
                screen.print(line, soft_wrap=True, markup=False)
            if drawn:
                screen.print(drawn, soft_wrap=True, markup=False)
        return 1 if report.verdict == "wrong" else 0


def _own(name: str, rate: float) -> tuple[Any, float | None]:
    """The user's trial and None, or a function from a rate to the trial and the rate.

    Raises:
      ValueError: there is no such function, or it returns no trial.
    """
    from jdl.engine.trial import Trial

    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"`--trial` must be package.module:function, got {name!r}.")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        make: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"`--trial` {name}: {error}.") from error
    takes = [
        p
        for p in inspect.signature(make).parameters.values()
        if p.default is inspect.Parameter.empty
    ]

    def at(lr: Any) -> Any:
        trial = make({"lr": lr}) if takes else make()
        if not isinstance(trial, Trial):
            raise ValueError(
                f"`--trial` {name} must return a jdl.train.Trial, got {type(trial).__name__}."
            )
        return trial

    with _asked(name):
        trial = at(rate)
    return (at, rate) if takes else (trial, None)


@contextlib.contextmanager
def _asked(name: str | None) -> Iterator[None]:
    """Explains the error if the function of `--trial` reads a hyperparameter it is not given."""
    try:
        yield
    except KeyError as error:
        if name is None:
            raise
        raise ValueError(
            f"`--trial` {name} asks for {error}, but only 'lr' is given. Use defaults for the "
            "rest, as in hp.get('dropout', 0.2)."
        ) from error


def lines(report: Report, seconds: float) -> list[str]:
    """The report as lines of text: problems by severity, then the checks that are fine."""
    text = []
    for check, problem in report.problems:
        text.append(f"{problem.verdict.upper():<11}{check}, {problem.kind}: {problem.advice}")
    fine = [finding for finding in report.findings if finding.verdict == "fine"]
    text += [f"{'fine':<11}{finding.check}: {finding.note}" for finding in fine]
    counts = [f"{len(fine)} of {len(report.findings)} checks are fine"]
    for verdict in ("wrong", "suspicious"):
        if count := sum(found.problem.verdict == verdict for found in report.problems):
            counts.append(f"{count} {verdict}")
    return [*text, "", f"{', '.join(counts)} ({seconds:.1f} s)."]


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values; numbers that are not finite are null."""
    return {
        "verdict": report.verdict,
        "rate": report.rate,
        "rate_unit": report.unit.strip() or "absolute",
        "problems": [{"check": check, **problem._asdict()} for check, problem in report.problems],
        "findings": [
            {
                "check": finding.check,
                "verdict": finding.verdict,
                "note": finding.note,
                "figures": _plain(finding.figures),
            }
            for finding in report.findings
        ],
        "seconds": report.seconds,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
