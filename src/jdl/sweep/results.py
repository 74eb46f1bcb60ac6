"""The results of a sweep: one row per trial, curves as arrays, the best trial and its state."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import PyTree
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from jdl._paths import expanded
from jdl.engine import checkpoint
from jdl.engine.database import StoreError
from jdl.engine.events import DONE, Exchanged
from jdl.engine.goal import Goal, larger_is_better
from jdl.engine.keys import to_keys
from jdl.engine.tables import Tables
from jdl.sweep.dimension import REPEATS
from jdl.sweep.ensemble import ensemble_of
from jdl.sweep.population import ancestry, restored, used
from jdl.sweep.records import Lanes, Summary, TrialResult
from jdl.sweep.space import from_json
from jdl.sweep.values import plain
from jdl.train.ensemble import Ensemble


class Results:
    """The results of a sweep, read from its file, so a finished folder gives the same."""

    def __init__(
        self,
        specification: Mapping[str, Any],
        trials: Sequence[TrialResult],
        curves: Mapping[str, np.ndarray],
        notes: Mapping[str, Any],
        folder: str | os.PathLike[str] | None = None,
        lanes: Lanes | None = None,
        exchanged: Sequence[Exchanged] = (),
        in_use: bool = False,
    ):
        self.specification = dict(specification)
        self.trials = list(trials)
        self.folder = None if folder is None else os.fspath(folder)
        self._curves = dict(curves)
        self._notes = dict(notes)
        self._in_use = in_use  # whether a process was running it when it was read
        self.lanes = lanes or Lanes({}, np.zeros((0, 3), int))
        self.make_trial: Callable[[dict[str, Any]], Any] | None = None  # known after `sweep.run`
        self._first = [trial.config for trial in trials]  # before any exchange
        self._exchanged = (
            restored(exchanged, from_json(self.specification["space"])) if exchanged else []
        )
        for one in sorted(self._exchanged, key=lambda one: one.report):
            trial = self.trials[one.trial]
            self.trials[one.trial] = trial._replace(config=trial.config | dict(one.numbers))

    @staticmethod
    def read(db: Tables, state_like: Callable[[int], PyTree] | None = None) -> Results:
        """The results that `db` holds.

        Args:
          db: the open file of a run.
          state_like: the shapes of a trial's state, to rebuild the kept ones;
            without it they are dicts by path.
        """
        specification = db.specification()
        if specification is None:
            raise StoreError(f"{db.folder} does not hold a run yet.")
        names, table = db.reports()
        rows = db.trials()
        reports = specification["steps"] // specification["report_every"]
        curves = {name: np.full((len(rows), reports), np.nan) for name in names}
        if len(table):
            trial = table[:, 0].astype(int)
            report = table[:, 1].astype(int) // specification["report_every"] - 1
            for column, name in enumerate(names):
                curves[name][trial, report] = table[:, 2 + column]
        last = np.zeros(len(rows), int)
        if len(table):
            np.maximum.at(last, trial, report)
        kept = db.scores()
        trials = []
        for trial_id, written, status, steps, final in rows:
            # JSON has no tuples, and a choice of lists is a choice of tuples.
            config = {k: plain(v) for k, v in written.items()}
            metrics = {name: float(curves[name][trial_id, last[trial_id]]) for name in names}
            state: PyTree | None = None
            if trial_id in kept and (leaves := db.state(trial_id)) is not None:
                like = state_like(trial_id) if state_like else None
                state = leaves if like is None else to_keys(checkpoint.fill(like, leaves))
            trials.append(TrialResult(trial_id, config, status, steps, metrics | final, state))
        lanes = Lanes({trial: lane for trial, (_, lane, _) in db.seats().items()}, db.segments())
        return Results(
            specification,
            trials,
            curves,
            db.notes(),
            db.folder,
            lanes,
            db.lineage(),
            db.in_use(),
        )

    @property
    def goal(self) -> Goal:
        """The metric that judges trials, and its direction."""
        return Goal.from_json(self.specification)

    @property
    def metric(self) -> str:
        """The name of the metric that judges trials."""
        return self.goal.metric

    def larger_is_better(self, metric: str) -> bool:
        """Whether larger values of `metric` are better, by the run's goal or by its name.

        The metric of the goal has the same direction on every split. If a name does
        not tell, smaller is better.
        """
        if metric.partition("_")[2] == self.metric.partition("_")[2]:
            return self.goal.sign > 0
        return bool(larger_is_better(metric))

    def score(self, trial: TrialResult) -> float:
        """The score of a trial by the goal's metric; larger is better."""
        return self.goal.score(trial.metrics.get(self.metric, math.nan))

    @property
    def best(self) -> TrialResult:
        """The trial with the best final metric among those done.

        Raises:
          ValueError: no trial is done, or none with a finite metric.
        """
        done = [trial for trial in self.trials if trial.status == DONE]
        if not done:
            raise ValueError(
                f"No trial finished: {self.count('diverged')} of {len(self.trials)} diverged."
            )
        best = max(done, key=self.score)
        if self.score(best) == -math.inf:
            raise ValueError(
                f"No trial is best: {self.metric} is not finite in any of the {len(done)} that are "
                "done."
            )
        return best

    def ensemble(self, k: int) -> Ensemble:
        """The `k` best trials as one `train.Ensemble`, whose predictions are averaged.

        Raises:
          ValueError: the states of fewer than `k` done trials were kept.
        """
        done = [trial for trial in self.trials if trial.status == DONE]
        # Among equal scores the lower trial number wins, as in the journal.
        best = sorted(done, key=lambda trial: (-self.score(trial), trial.trial))
        return ensemble_of(self.make_trial, from_json(self.specification["space"]), best, k)

    def count(self, status: str) -> int:
        """How many trials have `status`."""
        return sum(trial.status == status for trial in self.trials)

    @property
    def complete(self) -> bool:
        """Whether the run came to its end; one that was cut goes on when called again."""
        return bool(self._notes.get("complete", False))

    def says(self, status: str) -> str:
        """A status as a person reads it: where nothing runs any more, none is running."""
        return "interrupted" if status == "running" and not self._in_use else status

    @property
    def programs(self) -> int:
        """Lane programs of the last call that ran trials, compiled or found in the cache."""
        stats = self.stats
        return stats.get("compilations", 0) + stats.get("found", 0)

    @property
    def stats(self) -> dict[str, Any]:
        """What the last call that ran trials cost: programs, seconds, lane steps and others."""
        return dict(self._notes.get("stats", {}))

    @property
    def plans(self) -> dict[str, Any]:
        """How each program was laid out, by its static values."""
        return dict(self._notes.get("plans", {}))

    @property
    def steps(self) -> np.ndarray:
        """The training step of each report, of shape (reports,)."""
        every = self.specification["report_every"]
        return np.arange(every, self.specification["steps"] + 1, every)

    def curves(self, metric: str | None = None) -> np.ndarray:
        """A reported metric as an array of shape (trials, reports), NaN where it is missing.

        Raises:
          ValueError: no such metric is reported.
        """
        name = metric or self.metric
        if name not in self._curves:
            raise ValueError(f"`metric` must be one of {sorted(self._curves)}, got {name!r}.")
        return self._curves[name]

    def lineage(self) -> list[Exchanged]:
        """The exchanges of a population: report, trial, the trial that it copied, new numbers."""
        return list(self._exchanged)

    def schedule(self, name: str, trial: int | None = None) -> np.ndarray:
        """The values that the hyperparameter `name` had in each report.

        Args:
          name: of a number.
          trial: traces the final weights of this trial back through those that it
            copied, for an array of shape (reports,). None gives what each trial
            used, of shape (trials, reports).
        """
        reports = len(self.steps)
        values = used(self._exchanged, self._first, reports, name)
        if trial is None:
            return values
        return values[ancestry(self._exchanged, trial, reports), np.arange(reports)]

    @property
    def curve_names(self) -> list[str]:
        """The names of the metrics that `curves` gives."""
        return list(self._curves)

    @property
    def seed_name(self) -> str | None:
        """The name of the space's axis of seeds, or None: a population's members are no seeds."""
        return next((n for n in self._repeated if "seeds" in self.specification["space"][n]), None)

    @property
    def _repeated(self) -> list[str]:
        """The axes that repeat a configuration. Members that copy each other repeat none."""
        if self.specification.get("population"):
            return []
        return [n for n, e in self.specification["space"].items() if {*e} & {*REPEATS}]

    def configurations(self, metric: str | None = None) -> list[Summary]:
        """The configurations with mean and standard error over their seeds and folds, best first.

        Configurations with a missing, diverged or stopped seed come after the others.
        Each member of a population is a configuration of its own.
        """
        name = metric or self.metric
        groups: dict[str, list[TrialResult]] = {}
        repeated, alone = self._repeated, bool(self.specification.get("population"))
        for trial in self.trials:
            own = [(k, v) for k, v in trial.config.items() if k not in repeated]
            groups.setdefault(repr((trial.trial, own) if alone else own), []).append(trial)
        summaries = []
        for members in groups.values():
            config = {k: v for k, v in members[0].config.items() if k not in repeated}
            values = np.array([t.metrics.get(name, math.nan) for t in members if t.status == DONE])
            values = values[np.isfinite(values)]
            mean = float(values.mean()) if values.size else math.nan
            stderr = (
                float(values.std(ddof=1) / math.sqrt(values.size)) if values.size > 1 else math.nan
            )
            summaries.append(Summary(config, [t.trial for t in members], mean, stderr, len(values)))
        sign = 1 if self.larger_is_better(name) else -1
        # One lucky seed must not beat a configuration whose seeds all finished.
        return sorted(
            summaries,
            key=lambda s: (s.done == len(s.trials), sign * s.mean if s.done else -math.inf),
            reverse=True,
        )

    def columns(self) -> dict[str, list[Any]]:
        """One entry per trial of every column: trial, status, steps, hyperparameters, metrics."""
        there = {name for trial in self.trials for name in trial.config}
        configs = [name for name in self.specification["space"] if name in there]
        metrics = list(dict.fromkeys(name for t in self.trials for name in t.metrics))
        return {
            "trial": [t.trial for t in self.trials],
            "status": [t.status for t in self.trials],
            "steps": [t.steps for t in self.trials],
            **{name: [t.config.get(name) for t in self.trials] for name in configs},
            **{name: [t.metrics.get(name, math.nan) for t in self.trials] for name in metrics},
        }

    def to_pandas(self) -> Any:
        """One row per trial, as a pandas DataFrame (needs the pandas extra)."""
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "to_pandas needs pandas: pip install 'jdl[pandas]'.", name=error.name
            ) from None
        return pandas.DataFrame(self.columns()).set_index("trial")

    def table(self, rows: int | None = None) -> Table:
        """One row per trial, best first, as a table for printing.

        Args:
          rows: how many at most; None for all.
        """
        columns = self.columns()
        order = sorted(range(len(self.trials)), key=lambda i: -self.score(self.trials[i]))
        # As Text, because a string is markup, and a user's may hold brackets.
        table = Table(*map(_heading, columns), header_style="bold", row_styles=["", "dim"])
        for index in order[:rows]:
            table.add_row(*(Text(format_value(column[index])) for column in columns.values()))
        return table

    def best_by(self, name: str) -> list[Summary]:
        """For each value of the hyperparameter `name`, its best configuration over seeds."""
        best: dict[str, Summary] = {}
        for summary in self.configurations():
            best.setdefault(repr(summary.config.get(name)), summary)
        return list(best.values())

    def plot(self, name: str, metric: str | None = None, path: str | None = None) -> Any:
        """Draws the final metric against the hyperparameter `name` (needs the plot extra).

        One curve for each static group, with a band of one standard error over
        seeds.

        Args:
          name: the hyperparameter on the horizontal axis.
          metric: what to draw; by default the metric of the goal.
          path: a file to write, in the format of its extension.

        Returns:
          The matplotlib figure.
        """
        from jdl.plot import sweep_figure

        figure = sweep_figure(self, name, metric or self.metric)
        if path is not None:
            figure.savefig(expanded(path), dpi=150)
        return figure

    def to_tensorboard(
        self, folder: str | os.PathLike[str], most: int | None = None
    ) -> pathlib.Path:
        """Writes each trial as a run of TensorBoard's HParams; see `sweep.export_hparams`."""
        from jdl.sweep.tensorboard import export_hparams

        return export_hparams(self, folder, most)

    def to_optuna(self, storage: str | os.PathLike[str], name: str | None = None) -> Any:
        """Writes the sweep as an Optuna study and gives it; see `sweep.export_study`."""
        from jdl.sweep.optuna import export_study

        return export_study(self, storage, name)

    def __repr__(self) -> str:
        statuses = dict.fromkeys(t.status for t in self.trials)
        counts = ", ".join(f"{self.count(status)} {self.says(status)}" for status in statuses)
        return f"Results({len(self.trials)} trials: {counts}; judged by {self.metric})"

    def show(self, rows: int = 10) -> None:
        """Prints the best `rows` trials."""
        Console().print(self.table(rows))


def _heading(name: str) -> Column:
    return Column(Text(name))


def format_value(value: Any) -> str:
    """A cell of a table: numbers to four significant digits, a dash for a missing value.

    >>> format_value(0.123456), format_value(3), format_value("adam"), format_value(math.nan)
    ('0.1235', '3', 'adam', '-')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def read(folder: str | os.PathLike[str]) -> Results:
    """The results in a run's folder, finished or still running.

    The kept states are dicts by path; call `run` again to rebuild them.

    Raises:
      StoreError: the folder holds no run, or it is damaged.
    """
    db = Tables(folder, write=False)
    try:
        return Results.read(db)
    finally:
        db.close()
