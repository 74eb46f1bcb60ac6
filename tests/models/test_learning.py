"""That models learn: text by heart, images by heart, and clothes that were never seen."""

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests import needs

from jdl import data, losses, metrics, models, optim, sweep, train

pytestmark = pytest.mark.slow
README = pathlib.Path(__file__).parents[2] / "README.md"


def text(length):
    """Every window of `length + 1` letters of the README's first 2000, as codes."""
    corpus = README.read_text(encoding="utf-8")[:2000]
    letters, codes = np.unique(list(corpus), return_inverse=True)
    windows = np.lib.stride_tricks.sliding_window_view(codes, length + 1)
    return jnp.asarray(windows, jnp.int32), letters


def learn(model, windows, target, steps, rate, batch=32):
    """The first loss of Adam and the mean of the last 20; `target` cuts a batch into x and y."""
    optimizer = optim.adam(rate, b2=0.99)
    params, state = jax.jit(model.init)(jax.random.key(0), target(windows[:batch])[0])

    def loss(params, x, y):
        return losses.softmax_cross_entropy(model.apply(params, state, x, train=True)[0], y).mean()

    def step(carry, t):
        params, slots = carry
        key = jax.random.fold_in(jax.random.key(1), t)
        chosen = windows[jax.random.randint(key, batch, 0, len(windows))]
        value, gradient = jax.value_and_grad(loss)(params, *target(chosen))
        updates, slots = optimizer.update(gradient, slots, params)
        return (optim.apply_updates(params, updates), slots), value

    carry = params, optimizer.init(params)
    (params, _), values = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(steps)))(carry)
    return params, state, float(values[0]), float(values[-20:].mean())


def test_a_transformer_learns_the_readme():
    windows, letters = text(32)
    model = models.transformer(len(letters), length=32, depth=2, features=64, heads=4)
    params, state, first, last = learn(model, windows, lambda w: (w[:, :-1], w[:, 1:]), 500, 3e-3)
    print(f"transformer: {len(letters)} letters, loss {first:.3f} to {last:.3f}")
    # Before training as good as guessing; after, 2000 letters nearly known by heart.
    assert abs(first - math.log(len(letters))) < 0.2
    assert last < 0.5
    # Where it has seen 16 letters or more it knows the next one.
    x, y = windows[::11, :-1], windows[::11, 1:]
    scores, _ = jax.jit(model.apply)(params, state, x)
    right = metrics.accuracy(scores[:, 16:], y[:, 16:]).mean()
    print(f"transformer: {float(right):.3f} of the letters right")
    assert right > 0.9


def test_an_lstm_learns_the_readme():
    windows, letters = text(16)
    model = models.lstm_classifier(len(letters), len(letters), features=64)
    *_, first, last = learn(model, windows, lambda w: (w[:, :-1], w[:, -1]), 1000, 1e-2)
    print(f"LSTM: {len(letters)} letters, loss {first:.3f} to {last:.3f}")
    assert abs(first - math.log(len(letters))) < 0.3
    assert last < 0.5


def test_resnet_20_overfits_64_images():
    """Noise with drawn labels: nothing but learning by heart reaches accuracy 1."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(64, 32, 32, 3)), jnp.float32)
    y = jnp.asarray(rng.integers(0, 10, 64))
    model, optimizer = models.resnet(10), optim.adam(3e-3)
    params, state = jax.jit(lambda key: model.init(key, x))(jax.random.key(0))

    def step(carry, _):
        params, state, slots = carry

        def loss(params):
            scores, after = model.apply(params, state, x, train=True)
            value = losses.softmax_cross_entropy(scores, y).mean()
            return value, (after, metrics.accuracy(scores, y).mean())

        (_, (state, accuracy)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, slots = optimizer.update(grads, slots, params)
        return (optim.apply_updates(params, updates), state, slots), accuracy

    carry = params, state, optimizer.init(params)
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=60))
    (params, state, _), accuracy = run(carry)
    assert float(accuracy[0]) < 0.5 and float(accuracy[-1]) == 1.0
    # In evaluation too, with the running statistics.
    scores, _ = jax.jit(lambda p, s: model.apply(p, s, x))(params, state)
    assert float(metrics.accuracy(scores, y).mean()) == 1.0


@needs.fashion_mnist
def test_a_sweep_of_cnns_learns_fashion_mnist():
    """Eight rates, two seeds, two epochs; the lane best in validation is judged by the test set."""
    clothes = data.fashion_mnist()

    def make_trial(hp):
        return train.classifier(models.cnn(10, features=(16, 32)), optim.adam(hp["lr"]))

    rates = [float(rate) for rate in np.geomspace(1e-4, 3e-2, 8)]
    space = {"lr": sweep.choice(*rates), "seed": sweep.seeds(2)}
    results = sweep.run(make_trial, space, clothes, epochs=2, devices=2, progress=False)
    assert len(results.trials) == 16 and results.metric == "valid_accuracy"
    for trial in results.trials:
        m = trial.metrics
        print(f"{trial.config} valid {m['valid_accuracy']:.4f} test {m['test_accuracy']:.4f}")
    best = results.best.metrics
    assert best["test_accuracy"] >= 0.88
    # The rate matters: the worst lane is far behind.
    worst = min(trial.metrics["valid_accuracy"] for trial in results.trials)
    assert worst < best["valid_accuracy"] - 0.02
