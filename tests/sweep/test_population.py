"""Populations: copies exact to the bit, lineage recorded, schedules recovered."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tests.engine.toys import dataset, line_trial

from jdl import data, nn, optim, sweep, train
from jdl.engine.devices import lane_mesh
from jdl.engine.row import move_lanes
from jdl.engine.rules import Evolution, Exchange
from jdl.train import Trial


@pytest.mark.parametrize("width", [16, 8])
def test_lanes_move_to_the_bit(width):
    """Across eight devices, to as many lanes or to half of them, NaN and all."""
    random = np.random.default_rng(0)
    words = random.integers(0, 2**32, size=(16, 3), dtype=np.uint32)
    lanes = {
        "float32": words.view(np.float32),
        "int32": words.view(np.int32),
        "bfloat16": jnp.asarray(words.astype(np.uint16)).view(jnp.bfloat16),
        "bool": words % 2 == 0,
        "scalar": words[:, 0],
    }
    sharding = NamedSharding(lane_mesh(8), P("lanes"))
    placed = jax.device_put(lanes, sharding)
    source = random.integers(0, 16, size=width)
    moved = move_lanes(placed, source.tolist(), sharding)
    for name, leaf in moved.items():
        assert np.asarray(leaf).tobytes() == np.asarray(lanes[name])[source].tobytes()
        assert leaf.sharding == sharding


def run(population, space, make=None, **options):
    given = {"trials": 6, "epochs": 4, "keep": 6, "seed": 3} | options
    return sweep.run(
        make or (lambda hp: line_trial(hp["lr"], steps=20)),
        space,
        dataset(),
        batch_size=4,
        progress=False,
        population=population,
        **given,
    )


LINE = {"lr": sweep.log_uniform(1e-3, 1e-1)}


def scripted(exchanges):
    """A population that does what a dict of report and trial says."""

    def evolve(report, trials, scores, numbers):
        assert list(trials) == sorted(trials) and len(scores) == len(numbers) == len(trials)
        return [exchanges.get((report, trial)) for trial in trials]

    return sweep.Population(lambda space, seed: Evolution(1, evolve, "scripted"), "scripted")


@pytest.mark.parametrize("devices", [1, 4])
def test_a_copy_goes_on_as_the_copied_one(devices):
    exchanges = {(2, 4): Exchange(1, {"lr": 0.05}), (3, 0): Exchange(4, {"lr": 0.02})}
    alone, results = (run(scripted(e), LINE, devices=devices) for e in ({}, exchanges))
    states, before = ([t.state for t in r.trials] for r in (results, alone))
    for trial in (1, 2, 3, 5):  # nobody touched these
        jax.tree.map(np.testing.assert_array_equal, states[trial], before[trial])
    # To the bit what trial 1 had after two reports of five steps each, then its own stream.
    for copy in (4, 0):
        np.testing.assert_array_equal(states[copy].start, before[1].start)
        np.testing.assert_array_equal(states[copy].x[:10], before[1].x[:10])
        np.testing.assert_array_equal(states[copy].masks[:10], before[1].masks[:10])
    np.testing.assert_array_equal(states[4].masks[10:], before[4].masks[10:])
    np.testing.assert_array_equal(states[0].masks[10:15], before[4].masks[10:15])
    np.testing.assert_array_equal(states[0].masks[15:], before[0].masks[15:])
    # By hand: each stretch at the rate of its time.
    config = [t.config["lr"] for t in alone.trials]
    weights = np.asarray(states[0].start, np.float64)
    rates = [config[1]] * 10 + [0.05] * 5 + [0.02] * 5
    for x, y, rate in zip(states[0].x, states[0].y, rates):
        x = np.asarray(x, np.float64)
        weights = weights - rate * 2 / 4 * x.T @ (x @ weights - y)
    np.testing.assert_allclose(states[0].weights, weights, rtol=1e-4)
    assert results.programs == 1
    # The record.
    exchanged = [(b.trial, b.report, b.source, b.numbers["lr"]) for b in results.lineage()]
    assert exchanged == [(0, 3, 4, pytest.approx(0.02)), (4, 2, 1, pytest.approx(0.05))]
    schedule = results.schedule("lr")
    assert schedule.shape == (6, 4)
    np.testing.assert_allclose(schedule[4], [config[4]] * 2 + [0.05] * 2, rtol=1e-6)
    np.testing.assert_allclose(
        results.schedule("lr", trial=0), [config[1]] * 2 + [0.05, 0.02], rtol=1e-6
    )


def surrogate(hp):
    """Figure 2 of Jaderberg et al. (2017): the gradient sees only what `h` lets it see."""

    def step(state, batch, key):
        h = jnp.stack([hp["h0"], hp["h1"]])
        loss = jnp.sum(h * state**2) - 1.2
        return state - 0.02 * 2 * h * state, {"loss": loss}

    return Trial(
        lambda key, batch: jnp.array([0.9, 0.9]),
        step,
        lambda state, batch: {"loss": jnp.sum(state**2)},
    )


def two_members():
    configs = iter([{"h0": 1.0, "h1": 0.0}, {"h0": 0.0, "h1": 1.0}])
    return sweep.Search(
        lambda n: [c for _, c in zip(range(n), configs)], lambda *_: None, "two members"
    )


def test_the_surrogate_of_the_paper():
    space = {"h0": sweep.choice(0.0, 1.0), "h1": sweep.choice(0.0, 1.0)}
    options = {"make": surrogate, "trials": 2, "epochs": 40, "metric": "valid_loss"}
    grid = run(None, space, search=two_members(), **options)
    # Alone each member never moves the coordinate it does not see: 0.81 remains.
    assert min(t.metrics["valid_loss"] for t in grid.trials) > 0.8
    exchanged = run(sweep.pbt(every=2, quantile=0.5), space, search=two_members(), **options)
    assert exchanged.best.metrics["valid_loss"] < 0.01
    assert len(exchanged.lineage()) > 5


def noisy_bowl(hp):
    """Gradient descent on `sum(x**2) / 2` with noisy gradients: the best rate falls like 1 / t."""

    def step(state, batch, key):
        gradient = state + 3.0 * jax.random.normal(key, state.shape)
        return state - hp["lr"] * gradient, {"loss": jnp.mean(state**2)}

    return Trial(
        lambda key, batch: jnp.full(64, 30.0),
        step,
        lambda state, batch: {"loss": jnp.mean(state**2)},
    )


def test_recovers_a_falling_rate():
    options = {
        "make": noisy_bowl,
        "trials": 24,
        "epochs": 40,
        "seed": 1,
        "diverged_above": math.inf,
    }
    space = {"lr": sweep.log_uniform(1e-3, 1.0)}
    fixed = run(None, space, **options)
    exchanged = run(sweep.pbt(every=1, perturb=(0.6, 1.6), resample=0.05), space, **options)
    schedule = exchanged.schedule("lr", trial=exchanged.best.trial)
    assert schedule.shape == (40,)
    early, late = np.exp(np.log(schedule[:4]).mean()), np.exp(np.log(schedule[-10:]).mean())
    assert early > 5 * late
    # No fixed rate reaches both the bowl and its bottom.
    assert exchanged.best.metrics["valid_loss"] < 0.6 * fixed.best.metrics["valid_loss"]


def test_a_member_that_diverged_copies_another():
    space = {"lr": sweep.choice(1e10, 0.01, 0.02, 0.03), "seed": sweep.seeds(1)}
    population = sweep.pbt(quantile=0.25, perturb=(0.5, 0.9), resample=0.0)
    results = run(population, space, trials=None)
    assert results.count("done") == 4
    first = results.lineage()[0]
    assert (first.trial, first.report) == (0, 1) and first.source != 0
    assert math.isnan(results.curves("valid_loss")[0, 0])
    assert np.isfinite(results.curves("valid_loss")[0, 1:]).all()


SPACE = {
    "lr": sweep.log_uniform(1e-3, 1.0),
    "units": sweep.choice(1.0, 2.0, 4.0),
    "seed": sweep.seeds(1),
}


def test_who_copies_whom():
    population = sweep.pbt(quantile=0.25, resample=0.0, perturb=(0.5, 2.0)).start(SPACE, 0)
    scores = [3.0, 1.0, 2.0, 8.0, 7.0, -math.inf, 4.0, 5.0]
    numbers = [{"lr": 0.01 * (i + 1), "units": 2.0, "seed": 0} for i in range(8)]
    trials = [10, 11, 12, 13, 14, 15, 16, 17]
    exchanges = population.evolve(4, trials, scores, numbers)
    assert [t for t, e in zip(trials, exchanges) if e] == [11, 15]
    for exchange in filter(None, exchanges):
        assert exchange.source in (13, 14)
        base = numbers[exchange.source - 10]["lr"]
        assert exchange.numbers["lr"] in (pytest.approx(base * 0.5), pytest.approx(base * 2))
        assert exchange.numbers["units"] in (1.0, 4.0)
        assert "seed" not in exchange.numbers
    assert population.evolve(4, trials, scores, numbers) == exchanges
    others = [population.evolve(report, trials, scores, numbers) for report in range(20)]
    assert len({e[1].source for e in others}) == 2


def test_numbers_stay_in_the_space():
    population = sweep.pbt(quantile=0.5, resample=0.0, perturb=(1e-9, 1e9)).start(SPACE, 0)
    numbers = [{"lr": 0.1, "units": 1.0}, {"lr": 0.1, "units": 4.0}]
    seen = [population.evolve(r, [0, 1], [0.0, 1.0], numbers)[0].numbers for r in range(30)]
    assert {round(n["lr"], 9) for n in seen} == {1e-3, 1.0}
    assert {n["units"] for n in seen} == {2.0, 4.0}
    drawn = sweep.pbt(quantile=0.5, resample=1.0).start(SPACE, 0)
    values = [drawn.evolve(r, [0, 1], [0.0, 1.0], numbers)[0].numbers["lr"] for r in range(200)]
    assert 1e-3 <= min(values) < 3e-3 and 0.3 < max(values) <= 1.0
    assert abs(np.mean(np.log10(values)) + 1.5) < 4 * 3 / math.sqrt(12 * 200)


def test_when_all_diverged_nobody_copies():
    population = sweep.pbt().start(SPACE, 0)
    numbers = [{"lr": 0.1, "units": 1.0}] * 2
    assert population.evolve(1, [0, 1], [-math.inf, -math.inf], numbers) == [None, None]
    assert population.evolve(1, [0], [1.0], numbers[:1]) == [None]


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: sweep.pbt(every=0), r"`every` must be in \[1, inf\)"),
        (lambda: sweep.pbt(quantile=0.6), r"`quantile` must be in \(0, 0.5\]"),
        (lambda: sweep.pbt(perturb=(0.0, 2.0)), r"`perturb` must be in \(0, inf\)"),
        (lambda: sweep.pbt(resample=2.0), r"`resample` must be in \[0, 1\]"),
        (lambda: run(sweep.pbt(), {"lr": 0.1}), "needs a number that varies"),
        (lambda: run(sweep.pbt(), LINE, stopping=sweep.asha()), "leave out stopping"),
        (lambda: run(sweep.pbt(), LINE, lanes=2, devices=1), "a lane for each of its members"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_a_member_ends_with_is_what_it_is_said_to_be():
    """Its configuration, and so an ensemble, has the numbers that its weights were trained with."""
    digits = data.digits()
    few = data.Dataset(*((x[:100], y[:100]) for x, y in (digits.train, digits.valid, digits.test)))

    def make(hp):
        scaled = nn.chain(nn.dense(8), nn.relu, nn.dense(10), lambda x: x * hp["scale"])
        return train.classifier(scaled, optim.adam(hp["lr"]))

    space = {"lr": sweep.log_uniform(1e-3, 1e-1), "scale": sweep.log_uniform(0.1, 10.0)}
    results = sweep.run(
        make, space, few, trials=6, epochs=8, batch_size=20, seed=1, progress=False,
        population=sweep.pbt(quantile=0.4),
    )  # fmt: skip
    assert len(results.lineage()) > 3
    for trial in results.trials:
        ended = {name: results.schedule(name)[trial.trial, -1] for name in space}
        assert trial.config == pytest.approx(ended)
    x, y = few.valid
    ensemble = results.ensemble(6)
    for member, said in zip(ensemble.trials, ensemble.predictions(x), strict=True):
        loss = -np.log(said[np.arange(len(y)), y]).mean()
        assert loss == pytest.approx(results.trials[member].metrics["valid_loss"], rel=1e-4)


@pytest.mark.parametrize(
    "dimension,start,factor,right",
    [
        (sweep.integer(1, 10**6), 3, 1.2, 4),  # 3.6 rounded
        (sweep.integer(1, 10**6), 1, 1.2, 2),  # 1.2 is 1 again, so the next one
        (sweep.integer(1, 10**6), 3, 0.9, 2),
        (sweep.integer(1, 10**6), 10**6, 1.2, 10**6),
        (sweep.integer(-(10**6), 10**6), -1, 1.2, -2),
        (sweep.integer(1, 9), 5, 1.2, 6),
        (sweep.choice(32, 8, 64), 32, 1.2, 64),
        (sweep.choice(0.1, 0.2, 0.7), np.float32(0.2), 1.2, 0.7),
        (sweep.choice(0.1, 0.2, 0.7), np.float32(0.7), 0.8, 0.2),
        (sweep.log_grid(1 / 3, 2 / 3, 3), np.float32(1 / 3), 0.8, 1 / 3),
        (sweep.uniform(0.1, 0.7), np.float32(0.7), 1.2, 0.7),
    ],
)
def test_a_number_moves_to_a_value_of_its_dimension(dimension, start, factor, right):
    space = {"n": dimension}
    population = sweep.pbt(quantile=0.5, resample=0.0, perturb=(factor, factor)).start(space, 0)
    moved = population.evolve(1, [0, 1], [0.0, 1.0], [{"n": start}] * 2)[0].numbers["n"]
    assert moved == right and type(moved) is type(right)


def test_the_far_end_is_a_value_of_each_dimension():
    for made in (
        sweep.integer(1, 6), sweep.integer(1, 10**6), sweep.integer(0, 2**60, static=True),
        sweep.choice(3, 7), sweep.grid(0, 1, 3), sweep.log_grid(1, 4, 3), sweep.seeds(3),
        sweep.folds(3), sweep.uniform(0.1, 0.7), sweep.log_uniform(0.1, 0.7),
    ):  # fmt: skip
        last = made.points[-1] if made.points else (made.arguments["high"] if made.static
            else made.arguments[1])  # fmt: skip
        assert made.at(1.0) == last, made


def test_what_lanes_held_comes_back_as_the_values_of_the_space(tmp_path):
    space = {
        "lr": sweep.choice(0.01, 0.02, 0.03),
        "n": sweep.integer(1, 5),
        "wide": sweep.integer(1, 10**6),
        "seed": sweep.seeds(3),
    }
    configs = [
        {"lr": lr, "n": n, "wide": 3, "seed": s}
        for s, (lr, n) in enumerate([(0.01, 5), (0.02, 2), (0.03, 4)])
    ]
    given = iter(configs)
    search = sweep.Search(lambda n: [c for _, c in zip(range(n), given)], lambda *_: None, "three")
    results = run(
        sweep.pbt(quantile=0.5, resample=0.0),
        space,
        trials=3,
        search=search,
        out=tmp_path / "run",
    )
    assert results.lineage()
    configurations = [t.config for t in results.trials] + [b.numbers for b in results.lineage()]
    for config in configurations:
        assert config["lr"] in space["lr"].points
        assert config["n"] in space["n"].points
        assert all(type(config[name]) is int for name in ("n", "wide", "seed"))
    assert [t.config["seed"] for t in results.trials] == [0, 1, 2]
    assert any(b.numbers["wide"] != 3 for b in results.lineage())
    # Members that copied each other are no seeds of one configuration.
    assert [len(s.trials) for s in results.configurations()] == [1, 1, 1]
    assert results.seed_name is None
    assert all(math.isnan(s.stderr) for s in results.configurations())
    assert [t.config for t in sweep.read(tmp_path / "run").trials] == [
        t.config for t in results.trials
    ]


def test_a_population_across_folds_is_refused():
    with pytest.raises(ValueError, match="takes no `population`"):
        sweep.cross_validate(lambda hp: None, LINE, dataset(), 3, population=sweep.pbt())
