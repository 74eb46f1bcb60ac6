"""Optuna's samplers as searches that give whole batches, and sweeps as Optuna studies."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jdl._checks import check_choice, check_count
from jdl._paths import expanded
from jdl.sweep.dimension import REPEATS, Dimension
from jdl.sweep.search import (
    MOST_REJECTED,
    Config,
    Constraint,
    Search,
    free_names,
    limited,
    repeats,
)
from jdl.sweep.space import Space, configuration, exists, from_json, parse_space
from jdl.sweep.values import same

SAMPLERS = {
    "tpe": "TPESampler",
    "gp": "GPSampler",
    "cmaes": "CmaEsSampler",
    "qmc": "QMCSampler",
    "random": "RandomSampler",
}


def optuna_search(
    space: Mapping[str, Any],
    trials: int,
    sampler: str | Callable[[int], Any] = "tpe",
    *,
    batch: int = 32,
    seed: int = 0,
    constraint: Constraint | None = None,
) -> Search:
    """A sampler of Optuna that chooses `batch` configurations at a time (needs the optuna extra).

    The next batch is chosen when all of the previous one has ended, from the
    results in the order of trial numbers. The configurations therefore do not
    depend on which lane is faster, and a resumed sweep goes on as if it had never
    stopped. Larger batches keep more lanes busy; smaller ones learn more often. A
    diverged trial is told as failed. With an axis of seeds, a sampler sees the
    mean over them.

    Args:
      space: what each hyperparameter may be, conditions included.
      trials: how many to run, seeds counted.
      sampler: "tpe", "gp", "cmaes", "qmc" or "random", some of which need packages
        that Optuna names, or a function that makes a sampler from a seed, as in
        `lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True)`.
      batch: number of configurations chosen together, seeds not counted.
      seed: of the sampler.
      constraint: as in `random_search`; what it rejects is told as failed.

    Raises:
      ModuleNotFoundError: Optuna is not installed.
      ValueError: `trials` or `batch` is below 1, or no sampler has that name.
    """
    parsed = parse_space(space)
    trials, batch = check_count("trials", trials), check_count("batch", batch)
    if isinstance(sampler, str):
        check_choice("sampler", sampler, SAMPLERS)
    optuna = _optuna()
    with _quiet(optuna):
        made = _make_sampler(optuna, sampler, seed)
        study = optuna.create_study(sampler=made, direction="maximize")
    name = f"optuna {optuna.__version__} {type(made).__name__}, batches of {batch}, seed {seed}"
    batches = _Batches(optuna, study, parsed, trials, batch, limited(parsed, constraint))
    return Search(
        batches.ask,
        batches.tell,
        name + batches.limited.name,
        adaptive=True,
        facts=batches.limited.facts,
    )


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Optuna is not installed: pip install 'jdl[optuna]'.", name=error.name
        ) from error
    return optuna


@contextlib.contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Silences Optuna's announcements of studies and experimental features for a while."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _make_sampler(optuna: Any, sampler: str | Callable[[int], Any], seed: int) -> Any:
    if not isinstance(sampler, str):
        return sampler(seed)
    # The trials of one batch must not be chosen close together.
    apart = {"constant_liar": True} if sampler == "tpe" else {}
    return getattr(optuna.samplers, SAMPLERS[sampler])(seed=seed, **apart)


class _Batches:
    """A study that is asked and told in whole batches."""

    def __init__(
        self, optuna: Any, study: Any, space: Space, trials: int, batch: int, limited: Any
    ):
        self.limited = limited
        self._optuna, self._study, self._space = optuna, study, space
        self._repeats = repeats(space)
        self._left, self._batch = trials, batch
        self._given: deque[Config] = deque()  # chosen, not asked for yet
        self._asked: list[tuple[Any, list[Config]]] = []  # Optuna's trial, its configurations
        self._scores: dict[str, list[float]] = {}  # of the batch, by configuration

    def ask(self, wanted: int) -> list[Config]:
        if not self._given and not self._waits() and self._left > 0:
            with _quiet(self._optuna):
                self._learn()
                self._choose()
        return [self._given.popleft() for _ in range(min(wanted, len(self._given)))]

    def tell(self, configs: Sequence[Config], scores: Sequence[float]) -> None:
        for config, score in zip(configs, scores):
            self._scores.setdefault(_key(config), []).append(score)

    def _waits(self) -> bool:
        told = sum(map(len, self._scores.values()))
        return told < sum(len(configs) for _, configs in self._asked)

    def _learn(self) -> None:
        for trial, configs in self._asked:
            scores = [self._scores[_key(config)].pop(0) for config in configs]
            mean = math.fsum(scores) / len(scores)
            if math.isfinite(mean):
                self._study.tell(trial, mean)
            else:
                self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        self._asked, self._scores = [], {}

    def _choose(self) -> None:
        for _ in range(self._batch):
            if self._left <= 0:
                return
            trial, config = self._one()
            both = [config | repeat for repeat in self._repeats[: self._left]]
            configs = [{n: c[n] for n in self._space if n in c} for c in both]
            self._left -= len(configs)
            self._asked.append((trial, configs))
            self._given.extend(configs)

    def _one(self) -> tuple[Any, Config]:
        own = {name: self._space[name] for name in free_names(self._space)}
        for _ in range(MOST_REJECTED):
            trial = self._study.ask()
            config = _suggested(trial, own)
            if self.limited(config):
                return trial, config
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        raise ValueError(
            f"{MOST_REJECTED:,} configurations in a row do not satisfy the constraint. Narrow the "
            "space to where it can hold."
        )


def _suggested(trial: Any, space: Space) -> Config:
    return configuration(space, lambda name: suggest(trial, name, space[name]))


def _key(config: Config) -> str:
    return repr(sorted(config.items()))


def suggest(trial: Any, name: str, dimension: Dimension) -> Any:
    """The value that a trial of Optuna suggests for a dimension."""
    points, arguments = dimension.points, dimension.arguments
    if points is not None and len(points) == 1:
        return points[0]
    if dimension.kind in ("log_grid", "grid"):
        # As ordered numbers, because a sampler should know that neighbours are alike.
        drawn = trial.suggest_float(name, *arguments[:2], log=dimension.kind == "log_grid")
        scale = math.log if dimension.kind == "log_grid" else float
        return min(points or (), key=lambda point: abs(scale(point) - scale(drawn)))
    if dimension.kind in ("uniform", "log_uniform"):
        return trial.suggest_float(name, *arguments, log=dimension.kind == "log_uniform")
    if dimension.kind == "integer":
        low, high = integer_bounds(dimension)
        return trial.suggest_int(name, low, high)
    written = dict(zip(_labels(points or ()), points or ()))
    return written[trial.suggest_categorical(name, list(written))]


def integer_bounds(dimension: Dimension) -> tuple[int, int]:
    """The smallest and the largest value of an `integer` dimension."""
    arguments = dimension.arguments
    if isinstance(arguments, Mapping):
        return int(arguments["low"]), int(arguments["high"])
    return int(arguments[0]), int(arguments[1])


def _written(value: Any) -> Any:
    """A value as Optuna stores choices; a tuple becomes text."""
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _labels(points: Sequence[Any]) -> list[Any]:
    """The options of a choice as Optuna stores them: as text where it would take two for one."""
    plainly = [_written(point) for point in points]
    if len({*plainly}) == len({repr(point) for point in points}):
        return plainly
    return [repr(point) for point in points]


def _label(dimension: Dimension, value: Any) -> Any:
    """A value of a dimension as Optuna stores it."""
    if dimension.kind != "choice":
        return value
    points = dimension.points or ()
    return _labels(points)[next(i for i, point in enumerate(points) if same(point, value))]


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    distributions = optuna.distributions
    if dimension.kind in ("uniform", "grid", "log_uniform", "log_grid"):
        low, high = dimension.arguments[:2]
        return distributions.FloatDistribution(low, high, log=dimension.kind.startswith("log"))
    if dimension.kind == "integer":
        return distributions.IntDistribution(*integer_bounds(dimension))
    return distributions.CategoricalDistribution(_labels(dimension.points or ()))


def export_study(results: Any, storage: str | os.PathLike[str], name: str | None = None) -> Any:
    """Writes a finished or running sweep as a study of Optuna (needs the optuna extra).

    `optuna-dashboard` and `optuna.visualization` can then open it. Done trials
    are COMPLETE, stopped ones PRUNED, diverged ones FAIL, those in a lane RUNNING
    and the rest WAITING. Reports are intermediate values by training step.
    Constants, the seed, other metrics and the trial's number are user attributes.
    An existing study of that name is replaced.

    Args:
      results: of a sweep.
      storage: an SQLite file, created if it does not exist, or an Optuna URL.
      name: of the study; by default the name of the run's folder.

    Returns:
      The `optuna.Study`.

    Raises:
      ModuleNotFoundError: Optuna is not installed.
    """
    optuna = _optuna()
    url = os.fspath(storage)
    url = url if "://" in url else f"sqlite:///{expanded(url)}"
    name = name or os.path.basename(os.path.abspath(results.folder or "sweep"))
    goal = {"max": "maximize", "min": "minimize"}[results.goal.direction]
    with _quiet(optuna):
        with contextlib.suppress(KeyError):
            optuna.delete_study(study_name=name, storage=url)
        study = optuna.create_study(study_name=name, storage=url, direction=goal)
        study.set_metric_names([results.metric])
        study.add_trials(_frozen(optuna, results))
    return study


def _frozen(optuna: Any, results: Any) -> list[Any]:
    states = optuna.trial.TrialState
    space = from_json(results.specification["space"])
    swept = {
        key: _distribution(optuna, dimension)
        for key, dimension in space.items()
        if dimension.kind not in REPEATS and len(dimension.points or (0, 0)) > 1
    }
    state_of = {
        "done": states.COMPLETE,
        "stopped": states.PRUNED,
        "diverged": states.FAIL,
        "running": states.RUNNING,
        "pending": states.WAITING,
    }
    curves, steps = results.curves(), results.steps
    frozen = []
    for trial in results.trials:
        there = [key for key in swept if key in trial.config and exists(space[key], trial.config)]
        attributes = {"trial": trial.trial, "steps": trial.steps, "status": trial.status}
        rest = {key: _written(v) for key, v in trial.config.items() if key not in there}
        metrics = {k: v for k, v in trial.metrics.items() if math.isfinite(v)}
        value = metrics.get(results.metric) if trial.status in ("done", "stopped") else None
        state = state_of[trial.status]
        frozen.append(
            optuna.trial.create_trial(
                # To Optuna, a done trial without a finite value has failed.
                state=states.FAIL if state == states.COMPLETE and value is None else state,
                value=value,
                params={key: _label(space[key], trial.config[key]) for key in there},
                distributions={key: swept[key] for key in there},
                user_attrs=attributes | rest | metrics,
                intermediate_values={
                    int(step): float(v)
                    for step, v in zip(steps, curves[trial.trial])
                    if math.isfinite(v)
                },
            )
        )
    return frozen
