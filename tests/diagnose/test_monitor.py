"""Monitors in lanes: what they report, that training is as without them, and their cost in code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import data, diagnose, models, nn, optim, sweep, train


def digits():
    return data.digits(standardize=True)


def make_trial(hp):
    return train.classifier(models.mlp((16, 10)), optim.adam(hp["lr"]))


def swept(**options):
    space = {"lr": sweep.choice(1e-3, 1e-1), "seed": sweep.seeds(2)}
    return sweep.run(
        make_trial, space, digits(), steps=40, report_every=20, progress=False, **options
    )


@pytest.fixture(scope="module")
def both():
    return swept(), swept(monitors=[*diagnose.MONITORS])


def test_a_sweep_records_them_of_every_lane(both):
    _, watched = both
    names = {"update_ratio", "update_ratio_least", "update_ratio_most", "gradient_norm"}
    names |= {"dead_share", "saturated_share", "signal"}
    for name in names:
        curves = watched.curves(f"valid_{name}")
        assert curves.shape == (4, 2) and np.isfinite(curves).all()
    ratio = watched.curves("valid_update_ratio")
    rates = np.array([trial.config["lr"] for trial in watched.trials])
    # Adam moves every weight by about the rate: a hundred times it moves them further.
    assert (ratio[rates == 0.1].min() > 5 * ratio[rates == 1e-3].max()) and (ratio > 1e-4).all()


def test_training_is_as_without_them(both):
    plain, watched = both
    for name in ("train_loss", "valid_loss", "valid_accuracy"):
        np.testing.assert_array_equal(plain.curves(name), watched.curves(name))


def test_a_lane_reports_what_the_trial_alone_does():
    dataset = digits()
    x, y = (jnp.asarray(a[:100]) for a in dataset.train)
    trial = diagnose.monitored(make_trial({"lr": 0.01}))
    keys = jax.random.split(jax.random.key(2), 3)
    states = jax.vmap(lambda key: trial.init(key, (x, y)))(keys)
    lanes = jax.jit(jax.vmap(lambda state: trial.evaluate(state, (x, y))))(states)
    for lane in range(3):
        alone = trial.evaluate(jax.tree.map(lambda a, i=lane: a[i], states), (x, y))
        for name, value in alone.items():
            np.testing.assert_allclose(lanes[name][lane], value, rtol=2e-5, err_msg=name)
    assert len(set(np.asarray(lanes["gradient_norm"]).tolist())) == 3


def test_what_they_say_is_what_a_loop_finds():
    x = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    y = (np.arange(64) % 2).astype(np.int32)
    layers = nn.chain(nn.dense(7), nn.relu, nn.dense(2))
    trial = train.classifier(layers, optim.sgd(0.25))
    state = trial.init(jax.random.key(1), (x, y))
    first, none, last = state.params
    # Three of seven units off, whatever comes.
    first = first | {"bias": jnp.where(jnp.arange(7) < 3, -1e3, first["bias"])}
    state = state._replace(params=(first, none, last))
    seen = diagnose.monitored(trial).evaluate(state, (jnp.asarray(x), jnp.asarray(y)))
    assert float(seen["dead_share"]) == pytest.approx(3 / 7)
    assert float(seen["saturated_share"]) == 0

    def loss(params):
        some = jnp.asarray(x[:32]), jnp.asarray(y[:32])
        return trial.evaluate(state._replace(params=params), some)["loss"]

    grads = [np.asarray(g) for g in jax.tree.leaves(jax.grad(loss)(state.params))]
    weights = [np.asarray(w) for w in jax.tree.leaves(state.params)]
    norm = np.sqrt(sum((g**2).sum() for g in grads))
    size = np.sqrt(sum((w**2).sum() for w in weights))
    assert float(seen["gradient_norm"]) == pytest.approx(norm, rel=1e-5)
    assert float(seen["update_ratio"]) == pytest.approx(0.25 * norm / size, rel=1e-3)


def test_one_of_your_own_and_names_that_clash():
    own = diagnose.monitored(
        make_trial({"lr": 0.1}),
        [lambda trial, state, batch: {"largest": jnp.max(jnp.abs(state.params[1]["kernel"]))}],
    )
    batch = tuple(jnp.asarray(a[:40]) for a in digits().train)
    state = own.init(jax.random.key(0), batch)
    assert float(own.evaluate(state, batch)["largest"]) > 0
    clash = diagnose.monitored(own, [lambda trial, state, batch: {"loss": jnp.float32(0)}])
    with pytest.raises(ValueError, match="Two of trial and monitors report 'loss'"):
        clash.evaluate(state, batch)
    with pytest.raises(ValueError, match="`monitors` must be one of"):
        diagnose.monitored(own, ["deadness"])


def test_a_model_that_is_not_looked_at_is_the_same_program():
    model = nn.chain(nn.dense(7), nn.relu, nn.dense(2))
    x = jnp.ones((3, 5))
    trial = train.classifier(model, optim.sgd(0.1))
    batch = x, jnp.zeros(3, jnp.int32)
    state = trial.init(jax.random.key(0), batch)
    before = str(jax.make_jaxpr(trial.evaluate)(state, batch))
    diagnose.tap(trial.evaluate, state, batch)
    diagnose.monitored(trial).evaluate(state, batch)
    assert str(jax.make_jaxpr(trial.evaluate)(state, batch)) == before
    key = jax.random.key(0)
    step = str(jax.make_jaxpr(trial.step)(state, batch, key))
    assert str(jax.make_jaxpr(diagnose.monitored(trial).step)(state, batch, key)) == step
