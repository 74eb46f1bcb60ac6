"""Optuna's samplers in batches, and sweeps as studies of Optuna."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.engine.toys import dataset, line_trial
from tests.made_up import made_up

from jdl import sweep
from jdl.sweep.optuna import _label, suggest

optuna = pytest.importorskip("optuna")

SPACE = {
    "x": sweep.uniform(-2.0, 2.0),
    "rate": sweep.log_uniform(1e-4, 1.0),
    "opt": sweep.choice("sgd", "momentum"),
    "mu": sweep.when("opt", "momentum", sweep.log_grid(0.1, 0.9, 4)),
    "kernel": sweep.choice((3, 3), (5, 5)),
    "depth": sweep.integer(1, 4, static=True),
    "level": sweep.grid(0.0, 1.0, 5),
    "fixed": 7,
}


def score(config):
    """The better, the nearer to x = 0.5 and a rate of 0.01; momentum helps."""
    distance = (config["x"] - 0.5) ** 2 + 0.3 * math.log10(config["rate"] / 0.01) ** 2
    return -distance + 0.5 * (config["opt"] == "momentum")


def drive(search, order=None, diverged=lambda config: False, lanes=8):
    """Asks and tells as a sweep does: at most `lanes` at once, ending in any `order`."""
    random = np.random.default_rng(order)
    running, tried, scores = [], [], []
    while True:
        new = search.ask(1 if not tried else lanes - len(running))
        running += new
        tried += new
        if not running:
            return tried, scores
        ends = random.permutation(len(running))[: random.integers(1, len(running) + 1)]
        ended = [running[i] for i in sorted(ends)] if order is not None else list(running)
        told = [math.nan if diverged(c) else score(c) for c in ended]
        search.tell(ended, told)
        scores += told
        running = [c for c in running if not any(c is e for e in ended)]


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_every_value_is_one_of_the_space(sampler):
    tried, _ = drive(sweep.optuna_search(SPACE, 50, sampler, batch=10))
    assert len(tried) == 50
    space = sweep.parse_space(SPACE)
    for config in tried:
        expected = [name for name in SPACE if name != "mu" or config["opt"] == "momentum"]
        assert list(config) == expected
        assert -2 <= config["x"] <= 2 and 1e-4 <= config["rate"] <= 1
        assert all(config[n] in (space[n].points or (config[n],)) for n in config)
    assert {type(c["kernel"]) for c in tried} == {tuple}
    assert len({c["depth"] for c in tried}) == 4 and len({c.get("mu") for c in tried}) > 2


def test_what_is_tried_depends_on_no_order_in_which_trials_end():
    runs = [drive(sweep.optuna_search(SPACE, 60, batch=12, seed=3), order)[0] for order in (1, 2)]
    assert runs[0] == runs[1]
    other = drive(sweep.optuna_search(SPACE, 60, batch=12, seed=4), 1)[0]
    assert other[0] != runs[0][0]
    # As if it had been killed: the calls are made again, and the rest goes on equal.
    again = sweep.optuna_search(SPACE, 60, batch=12, seed=3)
    for at in range(0, 60, 12):
        batch = again.ask(12)
        assert batch == runs[0][at : at + 12]
        assert again.ask(5) == []  # no more before the batch is told
        again.tell(batch[::-1], [score(c) for c in batch[::-1]])
    assert again.ask(1) == []


def test_the_sampler_learns():
    space = {name: SPACE[name] for name in ("x", "rate", "opt")}
    best = max(drive(sweep.optuna_search(space, 96, batch=16))[1])
    chance = max(drive(sweep.optuna_search(space, 96, "random", batch=16))[1])
    assert best > chance and best > 0.45


def test_seeds_are_told_as_their_mean_and_diverged_ones_as_failed():
    space = {"x": sweep.uniform(0.0, 1.0), "seed": sweep.seeds(3)}
    told = []

    class Spy(optuna.samplers.RandomSampler):
        def after_trial(self, study, trial, state, values):
            told.append((state.name, values))

    search = sweep.optuna_search(space, 9, lambda seed: Spy(seed=seed), batch=2)
    first = search.ask(100)
    assert [c["seed"] for c in first] == [0, 1, 2] * 2
    assert first[0]["x"] == first[2]["x"] != first[3]["x"]
    search.tell(first, [1.0, 2.0, 6.0, 1.0, math.nan, 1.0])
    assert len(search.ask(100)) == 3 and search.ask(1) == []
    assert told == [("COMPLETE", [3.0]), ("FAIL", None)]


def test_constraints():
    search = sweep.optuna_search(SPACE, 30, batch=10, constraint=lambda c: c["x"] > 0)
    tried, _ = drive(search)
    assert len(tried) == 30 and all(c["x"] > 0 for c in tried)
    assert search.facts()["rejected"] > 5 and "constraint" in search.name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trials": 0}, "`trials` must be an integer of at least 1, got trials=0"),
        ({"trials": 3, "batch": 0}, "`batch` must be an integer of at least 1, got batch=0"),
        ({"trials": 3, "sampler": "tpa"}, "`sampler` must be one of 'tpe', .*, got sampler='tpa'"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        sweep.optuna_search(SPACE, **arguments)


def make_trial(hp):
    return line_trial(hp["lr"], steps=12)


def run(out, **changed):
    space = {"lr": sweep.log_uniform(1e-3, 10.0)}
    arguments = {"steps": 12, "batch_size": 4, "report_every": 4, "lanes": 1, "devices": 2}
    search = sweep.optuna_search(space, 20, batch=6)
    return sweep.run(
        make_trial, space, dataset(), search=search, out=out, progress=False, **arguments, **changed
    )


def test_a_sweep_by_optuna_goes_on_as_if_it_had_never_stopped(tmp_path):
    whole = run(tmp_path / "whole")
    assert len(whole.trials) == 20 and 0 < whole.count("diverged") < 20
    assert whole.programs == 1
    reports = [0]
    for seconds in (1e-3, 1e-3, None):
        part = run(tmp_path / "parts", seconds=seconds)
        # A call goes on for at least one segment, however little time it has.
        reports.append(np.count_nonzero(np.isfinite(part.curves())))
    assert 0 < reports[1] < reports[2] < reports[3]

    def table(results):
        return [(t.trial, t.config, t.status, t.steps) for t in results.trials]

    assert table(part) == table(whole)
    np.testing.assert_array_equal(part.curves(), whole.curves())


def test_a_sweep_is_a_study(tmp_path):
    results = made_up(40)
    results.trials[3] = results.trials[3]._replace(status="running")
    results.trials[4] = results.trials[4]._replace(status="pending")
    file = tmp_path / "study.sqlite"
    for _ in range(2):  # the second replaces the first
        results.to_optuna(file, "digits")
    study = optuna.load_study(study_name="digits", storage=f"sqlite:///{file}")
    assert study.direction.name == "MAXIMIZE" and len(study.trials) == 40
    state_of = {"done": "COMPLETE", "stopped": "PRUNED", "diverged": "FAIL"}
    state_of |= {"running": "RUNNING", "pending": "WAITING"}
    for ours, theirs in zip(results.trials, study.trials):
        assert theirs.state.name == state_of[ours.status]
        config = {k: v for k, v in ours.config.items() if k != "seed"}
        assert theirs.params == config and theirs.user_attrs["seed"] == ours.config["seed"]
        curve = results.curves()[ours.trial]
        assert theirs.intermediate_values == {
            int(step): pytest.approx(v) for step, v in zip(results.steps, curve) if v == v
        }
    assert study.best_value == pytest.approx(results.best.metrics["valid_accuracy"])
    assert study.best_trial.user_attrs["trial"] == results.best.trial
    assert study.trials[0].distributions["lr"].log
    importance = optuna.importance.PedAnovaImportanceEvaluator()
    assert optuna.importance.get_param_importances(
        study, params=["lr", "dropout"], evaluator=importance
    )


def test_options_that_compare_equal_are_suggested_apart():
    space = {
        "x": sweep.choice(True, 1, 1.0, False, 0),
        "y": sweep.choice((1, 2), "(1, 2)"),
        "plain": sweep.choice("a", 2, None),
    }
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = {name: set() for name in space}
    for _ in range(60):
        trial = study.ask()
        for name, dimension in space.items():
            value = suggest(trial, name, dimension)
            seen[name].add(repr(value))
            assert _label(dimension, value) == trial.params[name]
            assert type(_label(dimension, value)) is type(trial.params[name])
        study.tell(trial, 0.0)
    assert seen == {name: {repr(p) for p in d.points} for name, d in space.items()}
    assert {trial.params["plain"] for trial in study.trials} == {"a", 2, None}
