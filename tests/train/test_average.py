"""Averages in the lane: against a NumPy loop, beside an untouched last iterate, with batch norm."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jdl import data, nn, optim, sweep, train

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(2.0, 3.0, size=(60, 3)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5], np.float32) > 0).astype(np.int32)


def linear(rate=0.3):
    return train.classifier(nn.chain(nn.dense(2)), optim.sgd(rate))


def iterates(trial, steps):
    """The states of a trial, step by step."""
    state = trial.init(jax.random.key(3), (X, Y))
    step = jax.jit(trial.step)
    states = []
    for number in range(steps):
        batch = X[5 * number : 5 * number + 5], Y[5 * number : 5 * number + 5]
        state, _ = step(state, batch, jax.random.fold_in(jax.random.key(4), number))
        states.append(state)
    return states


def test_by_hand():
    averages = {
        "ema": optim.parameter_ema(0.7),
        "slow": optim.parameter_ema(0.9, debias=False),
        "swa": optim.swa(start=3, period=2),
    }
    alone = iterates(linear(), 9)
    beside = iterates(train.averaged(linear(), averages), 9)
    kernels = [np.asarray(s.params[0]["kernel"], np.float64) for s in alone]
    start = np.asarray(linear().init(jax.random.key(3), (X, Y)).params[0]["kernel"], np.float64)
    ema, slow, weight = np.zeros_like(start), start, 0.0
    for number, (kernel, state) in enumerate(zip(kernels, beside)):
        ema, weight = 0.7 * ema + 0.3 * kernel, 0.7 * weight + 0.3
        slow = 0.9 * slow + 0.1 * kernel
        taken = kernels[3 : number + 1 : 2] or [kernel]
        for name, expected in (("ema", ema / weight), ("slow", slow), ("swa", np.mean(taken, 0))):
            np.testing.assert_allclose(
                state.of(name).params[0]["kernel"], expected, rtol=1e-5, atol=1e-6
            )
        np.testing.assert_array_equal(
            state.last.params[0]["kernel"], alone[number].params[0]["kernel"]
        )


def test_metrics_are_those_of_the_averaged_state():
    trial = train.averaged(linear(), {"ema": optim.parameter_ema(0.9)})
    state = iterates(trial, 6)[-1]
    metrics = jax.jit(trial.evaluate)(state, (X, Y))
    own = jax.jit(linear().evaluate)
    assert sorted(metrics) == ["accuracy", "ema_accuracy", "ema_loss", "loss"]
    assert metrics["ema_loss"] == own(state.of("ema"), (X, Y))["loss"]
    assert metrics["loss"] == own(state.last, (X, Y))["loss"] != metrics["ema_loss"]


def test_predicts_with_the_average_that_is_named():
    make = lambda name: train.averaged(  # noqa: E731
        linear(), {"ema": optim.parameter_ema(0.9)}, predict_with=name
    )
    state = iterates(make(None), 6)[-1]
    layer = jax.tree.map(np.asarray, state.of("ema").params[0])
    logits = X @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(
        jax.jit(make("ema").predict)(state, X), special.softmax(logits, 1), rtol=1e-5
    )
    last = jax.jit(make(None).predict)(state, X)
    assert np.abs(last - special.softmax(logits, 1)).max() > 1e-3
    assert state.params is state.last.params


def test_statistics_of_batch_norm_are_the_averaged_networks_own():
    """Of one batch over and over, running statistics become that batch's under the parameters."""
    model = nn.chain(nn.dense(4), nn.batch_norm(momentum=0.5), nn.relu, nn.dense(2))
    base = train.classifier(model, optim.sgd(0.0001))
    # An average that stays where it began, far from where the iterate has gone.
    trial = train.averaged(base, {"ema": optim.parameter_ema(1.0, debias=False)})
    state = trial.init(jax.random.key(5), (X, Y))
    began = state.last.params[0]["kernel"]
    moved = jax.tree.map(lambda w: w + 1.0, state.last.params)
    state = state._replace(last=state.last._replace(params=moved))
    step = jax.jit(trial.step)
    for number in range(40):
        state, _ = step(state, (X, Y), jax.random.fold_in(jax.random.key(6), number))
    np.testing.assert_allclose(
        state.averages["ema"].model_state[1]["mean"], (X @ began).mean(0), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        state.last.model_state[1]["mean"], (X @ (began + 1) + 1).mean(0), rtol=1e-2
    )
    exact = nn.recompute_batch_stats(model, state.of("ema").params, state.model_state, [X])
    np.testing.assert_allclose(exact[1]["mean"], (X @ began).mean(0), rtol=1e-4, atol=1e-4)


def test_the_decay_of_a_lane_is_swept_and_judged_by():
    def make_trial(hp):
        model = nn.chain(nn.dense(8), nn.batch_norm(), nn.relu, nn.dropout(0.2), nn.dense(10))
        trial = train.classifier(model, optim.sgd(0.5))
        return train.averaged(trial, {"ema": optim.parameter_ema(hp["decay"])})

    results = sweep.run(
        make_trial,
        {"decay": sweep.choice(0.0, 0.9, 0.99), "seed": sweep.seeds(1)},
        data.digits(),
        epochs=2,
        metric="valid_ema_accuracy",
        progress=False,
    )
    assert results.programs == 1 and results.specification["goal"] == "max"
    off = results.trials[0]
    # A decay of 0 is the last iterate; only the statistics of its batch norm saw other masks.
    kernel = off.state.of("ema").params[0]["kernel"]
    np.testing.assert_allclose(kernel, off.state.params[0]["kernel"], rtol=1e-6)
    assert len({t.metrics["valid_loss"] for t in results.trials}) == 1
    assert len({t.metrics["valid_ema_loss"] for t in results.trials}) == 3


def test_the_averages_cost_no_backward_pass():
    model = nn.chain(nn.dense(64), nn.batch_norm(), nn.dense(2))
    base = train.classifier(model, optim.sgd(0.1))
    trial = train.averaged(base, {"ema": optim.parameter_ema(0.9)})

    def flops(trial):
        args = jax.eval_shape(trial.init, jax.random.key(0), (X, Y)), (X, Y), jax.random.key(1)
        return jax.jit(trial.step).lower(*args).compile().cost_analysis()["flops"]

    forward = 2 * 60 * (3 * 64 + 64 * 2)
    assert flops(trial) - flops(base) < 3 * forward  # with a backward pass it would be more than 6


@pytest.mark.parametrize(
    ("averages", "options", "message"),
    [
        ({}, {}, "`averages` must hold at least one"),
        (
            {"ema": optim.parameter_ema(0.9)},
            {"predict_with": "swa"},
            "one of ema or None, got 'swa'",
        ),
    ],
)
def test_errors(averages, options, message):
    with pytest.raises(ValueError, match=message):
        train.averaged(linear(), averages, **options)


def test_an_average_that_is_not_there():
    trial = train.averaged(linear(), {"ema": optim.parameter_ema(0.9)})
    state = trial.init(jax.random.key(0), (X, Y))
    with pytest.raises(ValueError, match="`name` must be one of ema, got name='best'"):
        state.of("best")


def test_augmentation_changes_training_alone():
    def shifted(key, batch):
        return batch[0] + 100.0 + jax.random.uniform(key, ()), batch[1]

    def keeps_its_input(params, state, x, *, key=None, train=False):
        return x[:, :2] * params["w"], {"x": x}

    model = nn.Layer(
        lambda key, x: ({"w": jnp.ones(())}, {"x": jnp.zeros(x.shape)}), keeps_its_input
    )
    trial = train.classifier(model, optim.sgd(1e-3), augment=shifted)
    plain = train.classifier(model, optim.sgd(1e-3))
    state, step = trial.init(jax.random.key(0), (X, Y)), jax.jit(trial.step)
    gaps = []
    for number in range(2):
        after, _ = step(state, (X, Y), jax.random.fold_in(jax.random.key(1), number))
        gaps.append(float(jnp.mean(after.model_state["x"] - X)))
    assert min(gaps) >= 99.99 and max(gaps) < 101.01 and abs(gaps[0] - gaps[1]) > 1e-3
    same = [jax.jit(t.evaluate)(state, (X, Y))["loss"] for t in (trial, plain)]
    assert same[0] == same[1]


def test_mixed_labels_have_an_accuracy():
    trial = train.classifier(
        nn.chain(nn.dense(2)), optim.sgd(1e-3), augment=data.augment.mixup(0.4, 2)
    )
    one, two = jax.random.split(jax.random.key(0))
    _, metrics = jax.jit(trial.step)(trial.init(one, (X, Y)), (X, Y), two)
    assert 0 <= float(metrics["accuracy"]) <= 1 and np.isfinite(metrics["loss"])


def test_the_pass_of_each_average_draws_from_a_key_of_its_own():
    """For its statistics: with the last iterate's key all would drop the same units."""
    seen = []

    def init(key, x):
        return {"w": jnp.ones((3, 2))}, {"calls": jnp.zeros(())}

    def apply(params, state, x, *, key=None, train=False):
        if train:
            seen.append(tuple(jax.random.key_data(key).tolist()))
        return x @ params["w"], {"calls": state["calls"] + 1} if train else state

    batch = jnp.ones((4, 3)), jnp.array([0, 1, 1, 0])
    trial = train.averaged(
        train.classifier(nn.Layer(init, apply), optim.sgd(0.1)),
        {"slow": optim.parameter_ema(0.9), "fast": optim.parameter_ema(0.5)},
    )
    one, two, three = jax.random.split(jax.random.key(0), 3)
    state, _ = trial.step(trial.init(one, batch), batch, two)
    trial.step(state, batch, three)
    assert len(seen) == len({*seen}) == 6
