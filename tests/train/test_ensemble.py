"""Ensembles: means against loops over members, greedy selection against a search by hand."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest

from jdl import data, models, optim, sweep, train
from jdl.train.ensemble import Ensemble, Stacked

DIGITS = data.digits()
RANDOM = np.random.default_rng(1)


def make_trial(hp):
    model = models.mlp((hp["width"], 10), dropout=hp["dropout"], dropout_form="monte_carlo")
    return train.classifier(model, optim.adam(hp["lr"]))


@pytest.fixture(scope="module")
def results():
    """Two programs, whose trials come to the ensemble mixed."""
    space = {
        "width": sweep.choice(8, 16, static=True),
        "lr": sweep.log_grid(1e-3, 3e-2, 3),
        "dropout": sweep.choice(0.1, 0.3),
        "seed": sweep.seeds(1),
    }
    return sweep.run(make_trial, space, DIGITS, epochs=2, keep=7, progress=False)


def by_loop(results, trials, x):
    said = []
    for number in trials:
        trial = results.trials[number]
        said.append(jax.jit(make_trial(trial.config).predict)(trial.state, x))
    return np.array(said)


def test_is_the_mean_of_its_members(results):
    x = DIGITS.test[0][:90]
    ensemble = results.ensemble(5)
    order = sorted(results.trials, key=lambda t: -t.metrics["valid_accuracy"])
    assert [results.trials[t].metrics["valid_accuracy"] for t in ensemble.trials] == [
        t.metrics["valid_accuracy"] for t in order[:5]
    ]
    assert ensemble.trials[0] == results.best.trial
    assert len({results.trials[t].config["width"] for t in ensemble.trials}) == len(ensemble.stacks)
    expected = by_loop(results, ensemble.trials, x)
    # 40 does not divide 90: the last block is padded.
    np.testing.assert_allclose(ensemble.predictions(x, batch_size=40), expected, atol=1e-6)
    np.testing.assert_allclose(ensemble.predict(x), expected.mean(0), atol=1e-6)
    weighted = ensemble._replace(weights=np.array([0.4, 0.3, 0.2, 0.1, 0.0], np.float32))
    mean = np.einsum("m,mec->ec", weighted.weights, expected)
    np.testing.assert_allclose(weighted.predict(x), mean, atol=1e-6)


def test_monte_carlo_dropout(results):
    x = DIGITS.test[0][:50]
    ensemble = results.ensemble(3)
    key = jax.random.key(2)
    many = ensemble.predictions(x, key=key, samples=64)
    plain = ensemble.predictions(x)
    assert 0 < np.abs(many - plain).mean() < 0.1
    one, again = (ensemble.predictions(x, key=key, samples=1) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    # The mean of 64 masks lies nearer to the mean of others than one mask does.
    other = ensemble.predictions(x, key=jax.random.key(3), samples=64)
    assert np.abs(many - other).mean() < 0.4 * np.abs(one - other).mean()


def test_selection_on_the_validation_split(results):
    x, y = DIGITS.valid
    ensemble = results.ensemble(6)
    chosen = ensemble.select(x, y, rounds=20)
    assert chosen.weights.sum() == pytest.approx(1) and chosen.trials == ensemble.trials

    def loss(weights):
        said = np.einsum("m,mec->ec", weights, ensemble.predictions(x))
        return -np.log(said[np.arange(len(y)), y]).mean()

    singles = [loss(np.eye(6)[i]) for i in range(6)]
    assert loss(chosen.weights) <= min(*singles, loss(np.full(6, 1 / 6))) + 1e-6


def greedy_by_hand(said, y, rounds, start):
    """The same in NumPy, over explicit lists of members."""
    score = lambda bag: np.log(said[bag].mean(0)[np.arange(len(y)), y]).mean()  # noqa: E731
    bag = list(range(start))
    best = list(bag)
    for _ in range(rounds):
        bag = max(([*bag, m] for m in range(len(said))), key=score)
        best = list(bag) if score(bag) > score(best) else best
    return np.bincount(best, minlength=len(said)) / len(best)


@pytest.mark.parametrize("start", [1, 3])
def test_greedy_weights_by_hand(start):
    said = RANDOM.dirichlet(np.full(4, 0.7), size=(6, 30)).astype(np.float32)
    y = RANDOM.integers(0, 4, 30)
    weights = train.greedy_weights(said, y, rounds=12, start=start)
    np.testing.assert_allclose(weights, greedy_by_hand(said, y, 12, start), atol=1e-6)
    assert np.count_nonzero(weights) > 1


def test_greedy_weights_of_real_targets():
    """Two members that err by as much on opposite sides share the weight; a third is left out."""
    y = RANDOM.normal(size=(20, 1)).astype(np.float32)
    said = np.stack([y + 1, y - 1, y + 5]).astype(np.float32)
    np.testing.assert_allclose(train.greedy_weights(said, y, rounds=9), [0.5, 0.5, 0], atol=1e-6)


def test_ensemble_of_seeds_of_a_regression():
    splits = data.synthetic.linear(60, features=3, noise=0.5)
    trial = train.regressor(models.mlp((8, 1)), optim.adam(0.02))
    results = sweep.run(
        lambda hp: trial, {"seed": sweep.seeds(4)}, splits, epochs=3, progress=False
    )
    ensemble = results.ensemble(4)
    x, y = splits.test
    said = ensemble.predictions(x)
    assert said.shape == (4, len(x), 1)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in itertools.combinations(said, 2))
    # By Jensen's inequality, whatever the data.
    members = np.mean((said - y.reshape(1, -1, 1)) ** 2, (1, 2))
    assert np.mean((ensemble.predict(x) - y.reshape(-1, 1)) ** 2) < members.mean()


def test_errors(results, tmp_path):
    with pytest.raises(ValueError, match=r"`k` must be from 1 to 7.*got k=8. sweep.run.*keep="):
        results.ensemble(8)
    with pytest.raises(ValueError, match="`k` must be an integer of at least 1, got k=0"):
        results.ensemble(0)
    with pytest.raises(ValueError, match=r"`start` must be from 1 to 2, the members, got start=3"):
        train.greedy_weights(np.ones((2, 3, 2)) / 2, np.zeros(3, int), start=3)
    with pytest.raises(ValueError, match="at least one trained network"):
        train.stacked(make_trial, [])
    bare = train.Trial(
        lambda key, batch: 0.0, lambda s, b, k: (s, {"loss": s}), lambda s, b: {"loss": s}
    )
    ensemble = train.stacked(lambda hp: bare, [({}, {}, np.float32(0))])
    with pytest.raises(ValueError, match=r"averages what `Trial.predict` gives"):
        ensemble.predict(DIGITS.test[0])
    results.make_trial = None
    with pytest.raises(ValueError, match=r"Call sweep\.run"):
        results.ensemble(2)
    results.make_trial = make_trial


def test_no_examples_are_refused_and_lists_are_taken():
    stack = Stacked(lambda n, s, x, keys: np.asarray(x)[None].sum(-1), {}, {}, (0,))
    ensemble = Ensemble((0,), np.ones(1), (stack,))
    with pytest.raises(ValueError, match=r"`x` needs at least one example, got shape \(0, 2\)"):
        ensemble.predict(np.ones((0, 2)))
    said = ensemble.predict([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], batch_size=2)
    assert said.tolist() == [3.0, 7.0, 11.0]
