"""Trials that wrap trials: what they keep, above all the objective, against formulas by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import diagnose, nn, optim, sweep, train
from jdl.data import Dataset
from jdl.diagnose.monitor import watched
from jdl.engine.keys import to_words
from jdl.engine.trial import Trial, adapted, evaluate_split, evaluated_sizes
from jdl.engine.workload import make_workload
from jdl.sweep.cross_validation import by_fold

L2, RATE = 1.9, 0.3
RANDOM = np.random.default_rng(2)
X = RANDOM.normal(size=(6, 3)).astype(np.float32)
Y = RANDOM.normal(size=(6, 1)).astype(np.float32)


def regressor(hp=None):
    rate = RATE if hp is None else hp["lr"]
    return train.regressor(nn.chain(nn.dense(1)), optim.sgd(rate), l2=L2)


def by_hand(params, x=X, y=Y):
    """The penalised mean square of a linear model, and its gradient, in NumPy."""
    kernel, bias = (np.asarray(params[0][name], np.float64) for name in ("kernel", "bias"))
    error = x @ kernel + bias - y
    value = np.mean(error**2) + L2 / 2 * np.sum(kernel**2)
    scale = 2 / error.size
    return value, {"kernel": scale * x.T @ error + L2 * kernel, "bias": scale * error.sum(0)}


def value_and_grads(trial, state, batch):
    """What the checks differentiate."""
    value = diagnose.subject.objective(trial)
    key = jax.random.key(9)
    params = diagnose.params_of(state)
    return jax.jit(jax.value_and_grad(value))(params, state, batch, key)


def averaged(trial):
    """With an average that a step has taken far from the last iterate."""
    return train.averaged(trial, {"ema": optim.parameter_ema(0.9, debias=False)})


def in_words(trial):
    work = make_workload(
        lambda numbers: trial, Dataset((X, Y), None, None), epochs=1, steps=None,
        batch_size=6, report_every=None, eval_batch_size=6, diverged_above=1e6,
    )  # fmt: skip
    return work.trial({})


WRAPPERS = {
    "averaged": averaged,
    "monitored": diagnose.monitored,
    "rescaled": lambda trial: diagnose.rescaled(trial)(3.0),
    "watched": lambda trial: watched(lambda hp: trial, ["update_ratio"])({}),
    "in words": in_words,
    "nested": lambda trial: diagnose.monitored(averaged(trial)),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_trial_keeps_its_objective(name):
    trial = WRAPPERS[name](regressor())
    one, two = jax.random.split(jax.random.key(1))
    start = trial.init(one, (X, Y))
    state, _ = jax.jit(trial.step)(start, (X, Y), two)
    value, grads = value_and_grads(trial, state, (X, Y))
    expected, by_leaf = by_hand(state.params)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for leaf, grad in by_leaf.items():
        np.testing.assert_allclose(grads[0][leaf], grad, rtol=1e-5, atol=1e-6)
    # The evaluated loss is another function: it leaves the penalty out.
    assert abs(float(jax.jit(trial.evaluate)(state, (X, Y))["loss"]) - expected) > 0.1
    layer = jax.tree.map(np.asarray, state.params[0])
    said = jax.jit(trial.predict)(state, X)
    np.testing.assert_allclose(said, X @ layer["kernel"] + layer["bias"], rtol=1e-5, atol=1e-6)


def test_the_objective_of_a_fold_is_that_of_the_other_folds():
    trial = by_fold(regressor)({"lr": RATE, "fold": 1})
    rows = X[:, None] * np.array([1.0, 2.0, -1.5], np.float32)[:, None], np.stack([Y] * 3, 1)
    state = trial.init(jax.random.key(1), rows)
    x = np.concatenate([rows[0][:, 2], rows[0][:, 0]])
    value, grads = value_and_grads(trial, state, rows)
    expected, by_leaf = by_hand(state.params, x, np.concatenate([Y, Y]))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for leaf, grad in by_leaf.items():
        np.testing.assert_allclose(grads[0][leaf], grad, rtol=1e-5, atol=1e-6)
    left = jax.jit(trial.evaluate)(state, rows)["loss"]
    held, _ = by_hand(state.params, rows[0][:, 1], Y)
    penalty = L2 / 2 * np.sum(np.square(state.params[0]["kernel"]))
    np.testing.assert_allclose(left, held - penalty, rtol=1e-5)


def test_the_objective_of_an_autoencoder_is_of_its_input():
    trial = train.autoencoder(nn.identity, nn.chain(nn.dense(3)), optim.sgd(RATE), l2=L2)
    batch = X, np.full(6, 99)  # labels that nothing looks at
    state = trial.init(jax.random.key(1), batch)
    value, grads = value_and_grads(trial, state, batch)
    expected, by_leaf = by_hand(state.params[1], X, X)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for leaf, grad in by_leaf.items():
        np.testing.assert_allclose(grads[1][0][leaf], grad, rtol=1e-5, atol=1e-6)


def test_the_objective_of_a_row_has_each_trials_own_gradient():
    row = train.side_by_side(regressor, {"lr": np.array([0.1, 0.2], np.float32)})
    state = row.init(jax.random.key(1), (X, Y))
    value, grads = value_and_grads(row, state, (X, Y))
    members = [by_hand(jax.tree.map(lambda a, i=i: a[i], state.params)) for i in range(2)]
    np.testing.assert_allclose(value, members[0][0] + members[1][0], rtol=1e-6)
    for index, (_, by_leaf) in enumerate(members):
        for leaf, grad in by_leaf.items():
            np.testing.assert_allclose(grads[0][leaf][index], grad, rtol=1e-5, atol=1e-6)


def test_a_trial_in_another_form_and_on_another_batch():
    """`w <- w - batch * key`, held in a box, on batches ten times as large."""
    seen = []
    inner = Trial(
        init=lambda key, batch: seen.append(batch) or jnp.float32(5),
        step=lambda w, batch, key: (w - batch[0] * key, {"loss": w}),
        evaluate=lambda w, batch: {"loss": w * batch[0]},
        check=seen.append,
        predict=lambda w, x, key=None: (w, x, key),
        objective=lambda w, batch, key: w + batch[0] + key,
    )
    boxed = adapted(
        inner,
        inward=lambda box: box["w"],
        outward=lambda w: {"w": w},
        batch=lambda batch: (10 * batch[0],),
    )
    shapes = (jax.ShapeDtypeStruct((4,), jnp.int32),)
    assert boxed.init(None, shapes) == {"w": 5.0} and seen.pop()[0].shape == (4,)
    whole = (jnp.arange(4),)
    boxed.init(None, whole)
    adapted(inner).init(None, whole)
    # A batch that is changed comes as shapes, one that is not as it was given.
    assert seen.pop() is whole and isinstance(seen.pop()[0], jax.ShapeDtypeStruct)
    after, metrics = boxed.step({"w": 5.0}, (2.0,), 0.5)
    assert after == {"w": -5.0} and metrics == {"loss": 5.0}
    assert boxed.evaluate({"w": 5.0}, (2.0,)) == {"loss": 100.0}
    assert boxed.predict({"w": 5.0}, 7.0, 8.0) == (5.0, 7.0, 8.0)  # of inputs, not of batches
    assert boxed.objective({"w": 5.0}, (2.0,), 0.5) == 25.5
    boxed.check("data")
    assert seen == ["data"]
    bare = adapted(inner._replace(check=None, predict=None, objective=None), inward=boxed.check)
    assert bare.check is bare.predict is bare.objective is None
    assert adapted(inner, step="another").step == "another"
    with pytest.raises(ValueError, match="bind"):
        adapted(inner, bind=None)


def test_typed_keys_of_a_state_become_words_and_back():
    inner = Trial(
        init=lambda key, batch: key,
        step=lambda state, batch, key: (jax.random.fold_in(state, 3), {"loss": jnp.float32(0)}),
        evaluate=lambda state, batch: {"loss": jax.random.uniform(state)},
        objective=lambda state, batch, key: jax.random.uniform(state),
    )
    trial = in_words(inner)
    one, two = jax.random.split(jax.random.key(4))
    state = trial.init(one, None)
    assert jax.tree.leaves(state)[0].dtype == np.uint32
    after, _ = trial.step(state, None, two)
    with jax.debug_key_reuse(False):
        expected = jax.random.fold_in(one, 3)
        np.testing.assert_array_equal(after.words, to_words(expected).words)
        draw = jax.random.uniform(expected)
        assert trial.evaluate(after, None)["loss"] == trial.objective(after, None, None) == draw


@pytest.mark.parametrize(("examples", "most"), [(7, 3), (6, 3), (2, 3), (3, 3), (11, 4)])
def test_a_split_is_evaluated_as_a_whole_whatever_its_size(examples, most):
    sizes = []

    def evaluate(state, batch):
        sizes.append(batch[0].shape[0])
        return {"mean": state + jnp.mean(batch[0] ** 2)}

    x = np.arange(1, 6 * examples + 1, dtype=np.float32).reshape(examples, 3, 2)
    trial = Trial(lambda key, batch: None, lambda *_: None, evaluate)
    means = evaluate_split(trial, 0.5, (jnp.asarray(x),), most)
    np.testing.assert_allclose(means["mean"], 0.5 + np.mean(x**2), rtol=1e-6)
    assert sorted(set(sizes)) == sorted(evaluated_sizes(examples, most))
    assert sum(evaluated_sizes(examples, most)) <= examples


def of_constant(value, dtype):
    """A trial whose every metric is one number, in a type of the user's."""
    metrics = lambda: {"seen": jnp.asarray(value, dtype), "loss": jnp.float32(0)}  # noqa: E731
    return Trial(
        init=lambda key, batch: {"w": jnp.float32(0)},
        step=lambda state, batch, key: (state, metrics()),
        evaluate=lambda state, batch: metrics(),
    )


SIXTEEN = (np.zeros((16, 1), np.float32), np.zeros(16, np.float32))


def reported_by_fit(trial, size):
    options = {"epochs": 1, "batch_size": 4, "eval_batch_size": size, "progress": False}
    return train.fit(trial, Dataset(SIXTEEN, SIXTEEN, SIXTEEN), **options).metrics


def reported_by_sweep(trial, size):
    options = {"epochs": 1, "batch_size": 4, "eval_batch_size": size, "progress": False}
    data = Dataset(SIXTEEN, SIXTEEN, SIXTEEN)
    results = sweep.run(lambda hp: trial, {"lr": 0.1}, data, devices=1, **options)
    return results.trials[0].metrics


def reported_by_a_row(trial, size):
    rates = {"lr": np.ones(3, np.float32)}
    row = train.side_by_side(lambda hp: trial, rates, diverged_above=1e8)
    return reported_by_fit(row, size)


def reported_by_evaluate(trial, size):
    return train.evaluate(trial, {"w": jnp.float32(0)}, SIXTEEN, batch_size=size)


@pytest.mark.parametrize("size", [4, 5, 16])
@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        *((200, "uint8"), (-100, "int8"), (70, "bfloat16"), (8000, "float16"), (True, "bool")),
        *((30_000, "int16"), (3_000_000, "int32"), (200_000_000, "uint32"), (0.7, "float32")),
    ],
)
def test_the_mean_of_a_metric_is_taken_in_a_wide_type(value, dtype, size):
    split = tuple(map(jnp.asarray, SIXTEEN))
    means = evaluate_split(of_constant(value, dtype), {"w": jnp.float32(0)}, split, size)
    np.testing.assert_allclose(means["seen"], value, rtol=1e-6)
    assert means["seen"].dtype == np.float32


@pytest.mark.parametrize(
    "reported",
    [reported_by_fit, reported_by_sweep, reported_by_a_row, reported_by_evaluate],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize(("value", "dtype"), [(200, "uint8"), (8000, "float16"), (3e6, "int32")])
def test_every_report_takes_means_in_a_wide_type(reported, value, dtype):
    metrics = reported(of_constant(value, dtype), 5)
    seen = {name: m for name, m in metrics.items() if "seen" in name}
    assert seen and set(seen.values()) == {value}


def test_a_member_whose_narrow_loss_is_infinite_has_diverged():
    def member(hp):
        told = lambda w: {"loss": (w * hp["scale"]).astype(jnp.float16)}  # noqa: E731
        step = lambda w, batch, key: (w + 1, told(w))  # noqa: E731
        return Trial(lambda key, batch: jnp.float32(1), step, lambda w, batch: told(w))

    row = train.side_by_side(member, {"scale": np.array([3, 1e6], np.float32)})
    one, two = jax.random.split(jax.random.key(0))
    state, metrics = row.step(row.init(one, SIXTEEN), SIXTEEN, two)
    assert state.tolist() == [2, 1] and metrics["loss"] == 3
