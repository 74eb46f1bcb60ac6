"""Fourteen claims that courses make of training, each as an assertion over several seeds.

Each test is numbered as the README's list, which links the notebook with the picture. Where a
claim holds under conditions only, the test asserts both sides of the condition.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import data, diagnose, losses, models, nn, optim, sweep, train

init = nn.initializer


@pytest.fixture(scope="module")
def digits():
    return data.digits()


def walk(optimizer, loss, start, steps, batches=None):
    """The points visited, the start included, and the losses there; `loss(point[, batch])`."""

    def step(carry, batch):
        point, state = carry
        here = loss if batches is None else functools.partial(loss, batch=batch)
        value, gradient = jax.value_and_grad(here)(point)
        updates, state = optimizer.update(gradient, state, point, value=value, value_fn=here)
        return (optim.apply_updates(point, updates), state), (point, value)

    length = steps + 1 if batches is None else None
    return jax.lax.scan(step, (start, optimizer.init(start)), batches, length=length)[1]


def fit(make, digits, steps, *, seeds=3, size=32, **numbers):
    """Trains a network for every combination of `numbers` and every seed, as lanes of one program.

    Args:
      make: `hp -> (model, optimizer)`, `hp` one number of each.
      digits: the data.
      steps: of training, on batches of `size`.

    Returns:
      `(state, metrics)` of which every array has the axes of `numbers`, then one of seeds; the
      metrics are those of the test images.
    """
    x, y = (jnp.asarray(a) for a in digits.train)
    test = tuple(jnp.asarray(a) for a in digits.test)

    def one(seed, *values):
        trial = train.classifier(*make(dict(zip(numbers, values))))
        begin, pick, noise = jax.random.split(jax.random.fold_in(jax.random.key(7), seed), 3)
        drawn = jax.random.randint(pick, (steps, size), 0, len(x)), jax.random.split(noise, steps)

        def step(state, picked_and_key):
            picked, key = picked_and_key
            return trial.step(state, (x[picked], y[picked]), key)[0], None

        state = jax.lax.scan(step, trial.init(begin, (x, y)), drawn)[0]
        return state, trial.evaluate(state, test)

    axes = [*map(jnp.asarray, numbers.values()), jnp.arange(seeds)]
    grid = jnp.meshgrid(*axes, indexing="ij")
    flat = jax.jit(jax.vmap(one))(grid[-1].ravel(), *(a.ravel() for a in grid[:-1]))
    return jax.tree.map(lambda a: a.reshape(grid[0].shape + a.shape[1:]), flat)


# A sigmoid neuron with two examples: a plateau, a cliff, a valley.
X, Y = jnp.array([0.5, 2.5]), jnp.array([0.2, 0.9])


def neuron(point):
    return 0.5 * jnp.sum((jax.nn.sigmoid(point[0] * X + point[1]) - Y) ** 2)


def test_1_momentum_arrives_before_gradient_descent_and_nesterov_oscillates_less():
    starts = jnp.stack(
        jnp.meshgrid(jnp.array([-4.0, -3.0, -2.0, -1.0]), jnp.array([-2.0, 0.0, 2.0])), -1
    ).reshape(-1, 2)
    arrived, ups, length = {}, {}, {}
    makers = {
        "sgd": optim.sgd(1.0),
        "momentum": optim.momentum(1.0, 0.9),
        "nesterov": optim.nesterov(1.0, 0.9),
    }
    for name, optimizer in makers.items():
        points, values = jax.jit(jax.vmap(lambda s, o=optimizer: walk(o, neuron, s, 1500)))(starts)
        values, points = np.asarray(values), np.asarray(points)
        arrived[name] = np.array([np.flatnonzero(v >= 1e-3)[-1] + 1 for v in values])
        ups[name] = (np.diff(values, axis=1) > 1e-7).sum(1)
        length[name] = np.linalg.norm(np.diff(points, axis=1), axis=-1).sum(1)
    print({n: (np.median(arrived[n]), np.median(ups[n]), np.median(length[n])) for n in makers})
    # Where the slope is gentle; from the cliff momentum is later, since it has to come back.
    gentle = np.asarray(starts[:, 0] < -2.5)
    sooner = arrived["momentum"] / arrived["sgd"]
    assert np.median(sooner[gentle]) < 0.7 and (sooner[np.asarray(starts[:, 0] == -1)] > 1).all()
    assert (arrived["nesterov"] < arrived["momentum"]).all()
    # Momentum goes past the minimum and back, which is the longer way; descent never rises.
    assert np.median(length["momentum"]) > np.median(length["sgd"])
    assert ups["sgd"].max() == 0 and np.median(ups["momentum"]) > np.median(ups["nesterov"]) > 0
    assert np.median(length["nesterov"]) < np.median(length["momentum"])


def test_1_nesterov_damps_faster_up_to_a_rate_beyond_which_it_diverges(x64):
    # On a parabola of curvature h the product p = rate * h decides; m = 0.9.
    m = 0.9
    products = jnp.array([0.2, 0.6, 0.9, 1.3, 1.42, 2.0, 3.7])

    def left(make):
        run = jax.jit(
            jax.vmap(
                lambda p: walk(make(p), lambda w: 0.5 * jnp.sum(w**2), jnp.array([1.0]), 200)[1]
            )
        )
        values = np.asarray(run(products), np.float64)
        return (values[:, 160:].max(1) / values[:, 40:81].max(1)) ** (0.5 / 120)

    def root(b, c):
        return max(abs(np.roots([1.0, -b, c])))

    plain, ahead = left(lambda p: optim.momentum(p, m)), left(lambda p: optim.nesterov(p, m))
    print(plain, ahead)
    np.testing.assert_allclose(plain, [root(1 + m - p, m) for p in products], atol=0.01)
    below = products < (2 + 2 * m) / (1 + 2 * m)
    assert (ahead[below] < plain[below] - 0.005).all()
    assert (ahead[~below] > 1.02).all() and (plain < 1).all()


def test_2_a_very_high_rate_blows_up_on_the_steep_part():
    cliff = jnp.array([[0.0, 0.0], [0.2, -0.2], [-0.2, 0.1]])

    def run(optimizer, steps=60):
        return np.asarray(jax.jit(jax.vmap(lambda s: walk(optimizer, neuron, s, steps)[1]))(cliff))

    calm, wild = run(optim.sgd(1.0)), run(optim.sgd(100.0))
    searched = run(optim.line_search_descent((0.1, 1.0, 10.0, 100.0)))
    print(calm[:, [0, 1, -1]], wild[:, [0, 1, -1]], searched[:, [0, 1, -1]])
    assert (calm[:, 1] < calm[:, 0]).all()
    # Thrown onto the far plateau, where it stays; a search over rates, the wild one among them,
    # is not.
    assert (wild[:, 1] > wild[:, 0]).all() and (wild[:, 1:].min(1) > 0.1).all()
    assert (np.diff(searched, axis=1) <= 0).all()
    assert (searched[:, -1] < 0.1 * wild[:, -1]).all()
    # Where the slope has no bound there is no plateau to land on: above 2 over the curvature.
    h = 4.0
    last = [
        float(walk(optim.sgd(r), lambda w: 0.5 * h * jnp.sum(w**2), jnp.ones(2), 300)[1][-1])
        for r in (1.9 / h, 2.1 / h)
    ]
    assert last[0] < 1e-9 and last[1] > 1e9


def without_root(rate):
    def update(g, c, params=None, **extra):
        c = c + g**2
        return -rate * g / (c + 1e-8), c

    return optim.Optimizer(jnp.zeros_like, update)


def test_3_adagrad_moves_along_the_sparse_axis_and_stalls_where_rmsprop_and_adam_go_on():
    makers = {
        "sgd": optim.sgd,
        "momentum": optim.momentum,
        "nesterov": optim.nesterov,
        "adagrad": lambda rate: optim.adagrad(rate, initial_accumulator_value=0.0),
        "rmsprop": optim.rmsprop,
        "adam": optim.adam,
        "without": without_root,
    }
    sets = [data.synthetic.sparse_feature(300, sparsity=0.8, seed=seed).train for seed in range(3)]
    x, y = (jnp.asarray(np.stack(arrays)) for arrays in zip(*sets))
    start = jnp.array([-2.0, 3.0])
    rates = jnp.logspace(-3, 3, 13)

    def both(make):
        def one(x, y, rate):
            def loss(w):
                return 0.5 * jnp.mean((jax.nn.sigmoid(x @ w) - y[:, 0]) ** 2)

            return walk(make(rate), loss, start, 300)

        over_rates = jax.vmap(one, (None, None, 0))
        return [np.asarray(a) for a in jax.jit(jax.vmap(over_rates, (0, 0, None)))(x, y, rates)]

    working, ratio, slow = {}, {}, {}
    for name, make in makers.items():
        points, values = both(make)
        ends = np.where(np.isfinite(values[..., -1]), values[..., -1], np.inf)
        best = ends.mean(0).argmin()
        way = np.abs(points[:, best] - np.asarray(start))
        early = (np.linalg.norm(way, axis=-1) > 1.0).argmax(1)
        moved = way[np.arange(3), early]
        ratio[name] = moved[:, 1] / moved[:, 0]
        working[name] = (ends < 1e-3).sum(1)  # of 13 rates
        slow[name] = ends[:, 4]  # at rate 0.1
    print({n: (working[n], ratio[n].mean(), slow[n].mean()) for n in makers})
    for name in ("sgd", "momentum", "nesterov"):
        assert (ratio[name] < 0.7 * ratio["adagrad"]).all()
    # Its rate only falls, so that a rate that is too small is never made up for.
    assert (slow["adagrad"] > 10 * slow["rmsprop"]).all()
    assert (slow["adagrad"] > 10 * slow["adam"]).all()
    assert (ratio["adam"] > 0.7).all() and (ratio["rmsprop"] > 0.7).all()
    # Without the root there is a rate that works, but hardly another: a gradient that is k times as
    # large moves the weight 1/k as far. And it runs along the sparse axis first.
    assert 2 * working["without"].mean() < working["adagrad"].mean()
    assert (ratio["without"] > 3).all()


SEEDS = 3
WIDTH = 128


def pass_through(activation, kernel_init, keys, x, nudges=None):
    """What each of `len(keys)` layers gives, drawn and applied one after another."""
    layer = nn.chain(nn.dense(x.shape[-1], kernel_init=kernel_init), activation)

    def step(y, key_and_nudge):
        key, nudge = key_and_nudge
        params, state = layer.init(key, y)
        y = layer.apply(params, state, y)[0]
        y = y if nudge is None else y + nudge
        return y, y

    return jax.lax.scan(step, x, (keys, nudges))[1]


def outputs(activation, kernel_init, x, depth=10):
    """What each layer gives, (seeds, layers, examples, width)."""
    keys = jax.random.split(jax.random.key(0), (SEEDS, depth))
    return np.asarray(
        jax.jit(jax.vmap(lambda k: pass_through(activation, kernel_init, k, x)))(keys)
    )


def test_4_activations_by_depth():
    x = jax.random.normal(jax.random.key(1), (64, WIDTH))

    def given(activation, kernel_init):
        return outputs(activation, kernel_init, x)

    def rms(y):
        return np.sqrt((y**2).mean((-2, -1)))

    small = rms(given(nn.tanh, init.normal(0.01)))
    assert (small[:, -1] < 1e-8).all() and (small[:, 0] > 0.05).all()
    large = given(nn.tanh, init.normal(1.0))
    assert (np.mean(np.abs(large[:, -1]) > 0.99, (-2, -1)) > 0.7).all()
    xavier = rms(given(nn.tanh, init.glorot_normal))
    assert (xavier[:, -1] > 0.2).all()
    # Under ReLU Xavier halves the mean square at each layer, He keeps it.
    halved, kept = rms(given(nn.relu, init.glorot_normal)), rms(given(nn.relu, init.he_normal))
    np.testing.assert_allclose((halved[:, -1] / halved[:, 0]).mean(), 2**-4.5, rtol=0.4)
    np.testing.assert_allclose((kept[:, -1] / kept[:, 0]).mean(), 1.0, rtol=0.4)


@pytest.fixture(scope="module")
def wrong(digits):
    """Networks 64-16-10: healthy, with equal weights, with dead units, and leaky instead of dead.

    Accuracies, and the first layer's kernels and biases, each with a first axis of seeds.
    """

    def make(hp):
        def draw(key, shape, dtype=jnp.float32):
            return jnp.where(hp["equal"], 0.05, init.he_normal(key, shape, dtype))

        def activation(z):  # a ReLU has slope 0 on the other side
            return jnp.where(z > 0, z, hp["slope"] * z)

        first = nn.dense(16, kernel_init=draw, bias_init=init.constant(hp["bias"]))
        model = nn.chain(first, activation, nn.dense(10, kernel_init=draw))
        return model, optim.adam(0.01)

    state, metrics = fit(
        make, digits, 200, seeds=SEEDS, equal=[0.0, 1.0], bias=[0.0, -50.0], slope=[0.0, 0.01]
    )
    first = state.params[0]
    tables = [np.asarray(a) for a in (metrics["accuracy"], first["kernel"], first["bias"])]
    cases = {"healthy": (0, 0, 0), "equal": (1, 0, 0), "dead": (0, 1, 0), "leaky": (0, 1, 1)}
    return {name: [table[at] for table in tables] for name, at in cases.items()}


def test_5_equal_weights_never_separate(wrong, digits):
    accuracy, kernels, _ = wrong["healthy"]
    equal, same, _ = wrong["equal"]
    print(accuracy, equal)
    np.testing.assert_allclose(same, np.repeat(same[..., :1], 16, -1), rtol=1e-3, atol=1e-5)
    assert (np.ptp(kernels, axis=-1).max(-1) > 0.1).all()
    assert (accuracy > 0.9).all() and (equal < 0.5).all()
    # And it is found before training.
    x, y = (a[:64] for a in digits.train)
    model = models.mlp((16, 10), kernel_init=init.constant(0.05))
    trial = train.classifier(model, optim.adam(0.01))
    found = diagnose.symmetry(trial, (x, y), key=jax.random.key(0))
    assert found.problems and found.problems[0].verdict == "wrong"


def test_6_saturated_sigmoids_have_vanishing_gradients():
    slope = jax.grad(nn.sigmoid)
    assert float(slope(0.0)) == 0.25 and float(slope(8.0)) < 4e-4
    x = jax.random.normal(jax.random.key(1), (64, 32))

    def first_over_last(activation, kernel_init):
        """The gradient that arrives at the first of six layers, over that at the last."""
        weights = jax.random.normal(jax.random.key(2), (32,))

        def of(keys):
            def total(nudges):
                return jnp.sum(pass_through(activation, kernel_init, keys, x, nudges)[-1] @ weights)

            each = jnp.linalg.norm(jax.grad(total)(jnp.zeros((6, 64, 32))), axis=(1, 2))
            return each[0] / each[-1]

        keys = jax.random.split(jax.random.key(0), (SEEDS, 6))
        return np.asarray(jax.jit(jax.vmap(of))(keys))

    sigmoid = first_over_last(nn.sigmoid, init.lecun_normal)
    print(sigmoid, first_over_last(nn.relu, init.he_normal))
    assert (sigmoid < 0.01).all()
    assert (first_over_last(nn.relu, init.he_normal) > 0.2).all()


def test_6_all_positive_inputs_force_one_sign():
    x = jax.random.normal(jax.random.key(1), (SEEDS, 100, 8))
    w = jax.random.normal(jax.random.key(2), (8,))

    def gradient(x):
        def loss(w):
            return losses.sigmoid_cross_entropy((x @ w)[None], jnp.ones(1))[0]

        return jax.grad(loss)(w)

    each = jax.jit(jax.vmap(jax.vmap(gradient)))
    positive, centred = np.sign(each(nn.sigmoid(x))), np.sign(each(x))
    assert (np.abs(positive.sum(-1)) == 8).all()
    # Of centred inputs 2 of 2**8 sign patterns: 0.8 %.
    assert (np.mean(np.abs(centred.sum(-1)) == 8, -1) < 0.05).all()


def test_6_a_large_negative_bias_kills_a_relu_and_a_leaky_one_recovers(wrong, digits):
    def alive(kernels, biases):
        return np.mean((digits.train[0] @ kernels + biases[:, None] > 0).any(1), -1)

    dead, *of_dead = wrong["dead"]
    leaky, *of_leaky = wrong["leaky"]
    print(dead, alive(*of_dead), leaky, alive(*of_leaky))
    assert (alive(*of_dead) == 0).all() and (dead < 0.15).all()
    assert (of_dead[1] == -50).all()
    assert (alive(*of_leaky) > 0.4).all() and (leaky > 0.6).all()


def test_7_deep_linear_networks_explode():
    x = jax.random.normal(jax.random.key(1), (32, WIDTH))
    for gain in (0.7, 1.5):
        y = outputs(nn.identity, init.variance_scaling(gain**2, "in"), x, depth=20)
        size = np.sqrt((y**2).mean((-2, -1)))
        np.testing.assert_allclose(
            np.log(size[:, -1] / size[:, 0]).mean(), 19 * np.log(gain), atol=0.5
        )


def test_8_batch_norm_allows_higher_rates_and_forgives_bad_initialisation(digits):
    scales, rates = [0.02, 0.25, 1.0], [0.01, 0.1, 0.3, 1.0]

    def accuracy(norm):
        def make(hp):
            layers = []
            for _ in range(4):
                layers.append(nn.dense(32, kernel_init=init.normal(hp["scale"])))
                layers += [nn.batch_norm()] if norm else []
                layers.append(nn.relu)
            return nn.chain(*layers, nn.dense(10)), optim.sgd(hp["rate"])

        metrics = fit(make, digits, 160, seeds=SEEDS, scale=scales, rate=rates)[1]
        right = np.asarray(metrics["accuracy"])
        return np.where(np.isfinite(metrics["loss"]), right, 0.1)

    normed, plain = accuracy(True), accuracy(False)
    print(normed.mean(-1).round(2), plain.mean(-1).round(2), sep="\n")
    # Weights that are too small or too large: without it no rate trains.
    assert plain[[0, 2]].max() < 0.4
    # With it rate 1 does at every scale, at which without it not even the right one does.
    assert normed[:, 3].min() > 0.75 and plain[1, 3].max() < 0.7
    # With weights of the right size there is a rate at which it is not needed.
    assert plain[1].mean(-1).max() > 0.8


def dropped(form):
    return nn.chain(
        nn.dense(48), nn.relu, nn.dropout(0.5, form), nn.dense(48), nn.relu,
        nn.dropout(0.5, form), nn.dense(10),
    )  # fmt: skip


def test_9_both_forms_of_dropout_agree_and_one_pass_approximates_the_mean_over_masks(digits):
    # Of one layer, each form in the mean over masks is what it gives in evaluation.
    x = jnp.asarray([[1.0, -2.0, 3.0, 0.5]])
    for form, scale in (("inverted", 1.0), ("vanilla", 0.7)):
        layer = nn.dropout(0.3, form)
        keys = jax.random.split(jax.random.key(0), 20_000)
        mean = jax.vmap(lambda k, f=layer: f.apply({}, {}, x, key=k, train=True)[0])(keys).mean(0)
        np.testing.assert_allclose(layer.apply({}, {}, x)[0], scale * x, rtol=1e-6)
        # Five standard errors of a mean of 20,000: sqrt(0.3 * 0.7 / 20000) / 0.7 relatively.
        np.testing.assert_allclose(mean, scale * x, rtol=5 * 0.0047)

    def make(form):
        return fit(lambda hp: (dropped(form), optim.adam(3e-3)), digits, 250, seeds=SEEDS)

    state, metrics = make("inverted")
    accuracy = np.stack([metrics["accuracy"], make("vanilla")[1]["accuracy"]])
    print(accuracy)
    assert abs(accuracy[0].mean() - accuracy[1].mean()) < 0.03 and accuracy.min() > 0.85
    x = jnp.asarray(digits.test[0])
    masked = dropped("monte_carlo")

    @jax.jit
    @jax.vmap
    def compared(state, key):
        def logits(key=None):
            return masked.apply(state.params, state.model_state, x, key=key)[0]

        draws = nn.log_softmax(jax.lax.map(logits, jax.random.split(key, 100)))
        one, mean = nn.softmax(logits()), jnp.exp(draws).mean(0)
        geometric = nn.softmax(draws.mean(0))

        def apart(p, q):  # total variation
            return jnp.abs(p - q).sum(-1).mean() / 2

        far = apart(jnp.exp(draws[0]), mean)
        agree = jnp.mean(one.argmax(1) == mean.argmax(1))
        return apart(one, mean), apart(one, geometric), far, agree

    near, nearest, far, agree = compared(state, jax.random.split(jax.random.key(1), SEEDS))
    print(near, nearest, far, agree)
    # It names the same digits. As a distribution it is nearer than one mask, but it is the
    # geometric mean that it approximates (Goodfellow et al. 2016, section 7.12).
    assert (agree > 0.96).all()
    assert (near < 0.85 * far).all() and (nearest < 0.25 * near).all()


def test_10_an_ensemble_beats_its_mean_member_and_an_average_the_last_iterate(digits):
    def make_trial(hp):
        trial = train.classifier(models.mlp((24, 10)), optim.sgd(0.1))
        return train.averaged(trial, {"ema": optim.parameter_ema(0.99)})

    # A fifth of the labels are random: noise that no fit takes away.
    random = np.random.default_rng(0)
    x, labels = digits.train
    labels = np.where(random.random(len(x)) < 0.2, random.integers(0, 10, len(x)), labels)
    mixed = digits._replace(train=(x, labels.astype(np.int32)))
    members = 8
    results = sweep.run(
        make_trial, {"seed": sweep.seeds(members)}, mixed, epochs=3, batch_size=4, keep=members,
        progress=False, devices=2,
    )  # fmt: skip
    last, ema = (
        np.array([t.metrics[name] for t in results.trials])
        for name in ("test_loss", "test_ema_loss")
    )
    print(last, ema)
    assert (ema < last).mean() >= 0.75 and ema.mean() < 0.85 * last.mean()
    x, labels = digits.test
    said = results.ensemble(members).predictions(x)
    right = (said.argmax(-1) == labels).mean(1)
    together = (said.mean(0).argmax(-1) == labels).mean()

    def loss(p):
        return -np.log(np.maximum(p[..., np.arange(len(x)), labels], 1e-12)).mean()

    print(right, together, loss(said), loss(said.mean(0)))
    assert together > right.mean() + 0.01
    assert loss(said.mean(0)) < 0.9 * loss(said)


class Regression(NamedTuple):
    """Softmax regression on 600 digits: convex, so that there is a minimum to measure from."""

    loss: Any  # of a kernel, a batch and the penalty of the squared norm
    draw: Any  # of a key, steps and size: indices of mini-batches
    data: Any  # of a share of wrong labels: inputs and labels
    minimum: Any  # of labels, the penalty and a number of iterations of L-BFGS


@pytest.fixture(scope="module")
def regression(digits):
    random = np.random.default_rng(5)
    x, right = (jnp.asarray(a[:600]) for a in digits.train)
    guess, other = random.random(600), jnp.asarray(random.integers(0, 10, 600))

    def loss(kernel, batch, penalty):
        error = losses.softmax_cross_entropy(batch[0] @ kernel, batch[1]).mean()
        return error + penalty * jnp.sum(kernel**2)

    @jax.jit
    def minimum(labels, penalty, iterations=400):
        return optim.minimize(
            lambda w: loss(w, (x, labels), penalty), START, "lbfgs",
            max_iterations=iterations, gradient_tolerance=1e-6,
        )  # fmt: skip

    return Regression(
        loss,
        lambda key, steps, size: jax.random.randint(key, (steps, size), 0, len(x)),
        # Where labels are random the gradients of single images never agree.
        lambda wrong: (x, jnp.where(guess < wrong, other, right)),
        minimum,
    )


START = jnp.zeros((64, 10))
RATES = jnp.array([0.01, 0.03, 0.1, 0.3, 1.0])


def ended(regression, optimizer, key, steps, size, given, penalty):
    """The loss of all images after `steps` mini-batches."""
    x, y = given

    def step(carry, picked):
        w, state = carry

        def here(w):
            return regression.loss(w, (x[picked], y[picked]), penalty)

        value, gradient = jax.value_and_grad(here)(w)
        updates, state = optimizer.update(gradient, state, w, value=value, value_fn=here)
        return (optim.apply_updates(w, updates), state), None

    start = START, optimizer.init(START)
    (w, _), _ = jax.lax.scan(step, start, regression.draw(key, steps, size))
    return regression.loss(w, given, penalty)


def test_11_lbfgs_wins_in_full_batch_and_loses_in_mini_batches(regression):
    given, penalty = regression.data(0.2), 5e-3
    least = regression.minimum(given[1], penalty)
    some = regression.minimum(given[1], penalty, 40)
    gap = float(some.value - least.value)
    evaluations = int(some.evaluations)
    makers = {"sgd": optim.sgd, "momentum": optim.momentum, "adam": optim.adam}

    def loss(w):
        return regression.loss(w, given, penalty)

    @jax.jit
    @jax.vmap
    def full(rate):
        return [walk(make(rate), loss, START, evaluations)[1][-1] for make in makers.values()]

    first_order = [float(np.nanmin(v) - least.value) for v in full(jnp.logspace(-2, 1, 7))]
    print(gap, evaluations, dict(zip(makers, first_order)))
    assert gap < 0.1 * min(first_order)

    @jax.jit
    @jax.vmap
    def noisy(key):
        one, two = jax.random.split(key)

        def of(optimizer, key):
            return ended(regression, optimizer, key, 100, 8, given, penalty) - least.value

        return of(optim.lbfgs(), one), jax.vmap(lambda rate: of(optim.sgd(rate), two))(RATES)

    second, plain = (np.asarray(a) for a in noisy(jax.random.split(jax.random.key(5), 6)))
    print(second, plain.mean(0))
    second, plain = np.nan_to_num(second, nan=np.inf), plain[:, plain.mean(0).argmin()]
    assert second.min() > plain.max() and second.mean() > 2 * plain.mean()


def test_12_mini_batch_steps_are_noisy_and_the_exponential_average_smooths_them(regression):
    x, y = regression.data(0.2)
    b = 0.9
    average = optim.ema(b)

    def gradient(picked):
        return jax.grad(regression.loss)(START + 0.05, (x[picked], y[picked]), 5e-3)

    def smooth(sequence):
        def step(state, g):
            g, state = average.update(g, state)
            return state, g

        return jax.lax.scan(step, average.init(sequence[0]), sequence)[1]

    def spread(g):
        return jnp.sqrt(jnp.mean(g**2))

    @jax.jit
    @jax.vmap
    def spreads(key):
        one, two = jax.random.split(key)
        few = jax.lax.map(gradient, regression.draw(one, 300, 8)) - exact
        more = jax.lax.map(gradient, regression.draw(two, 300, 32)) - exact
        return spread(few) / spread(more), spread(smooth(few)[50:]) / spread(few[50:])

    exact = gradient(jnp.arange(len(x)))[None]
    by_size, by_average = spreads(jax.random.split(jax.random.key(8), SEEDS))
    print(by_size, by_average)
    # Four times the examples, half the noise.
    np.testing.assert_allclose(by_size, 2.0, rtol=0.1)
    # The variance of an average of independent steps: (1 - b) / (1 + b).
    np.testing.assert_allclose(by_average, np.sqrt((1 - b) / (1 + b)), rtol=0.15)


STEPS = 400
SCHEDULES = {
    "constant": optim.constant_schedule,
    "step": lambda r: optim.step_decay(r, STEPS / 6, 0.5),
    "exponential": lambda r: optim.exponential_decay(r, STEPS, 0.02),
    "natural exponential": lambda r: optim.natural_exponential_decay(r, 4 / STEPS),
    "1/t": lambda r: optim.inverse_time_decay(r, 30 / STEPS),
    "linear": lambda r: optim.linear_schedule(r, 0.0, STEPS),
    "cosine": lambda r: optim.cosine_decay_schedule(r, STEPS),
    "restarts": lambda r: optim.cosine_restarts(r, STEPS / 7, 2.0),
    "one cycle": lambda r: optim.cosine_onecycle_schedule(STEPS, r),
}


def test_13_every_decay_beats_a_constant_rate_that_is_high_where_noise_is_left(regression):
    # Each is proportional to its rate: at rate 1 it is a table, and all are one program.
    at = jnp.arange(STEPS)
    table = jnp.stack([jnp.broadcast_to(make(1.0)(at), (STEPS,)) for make in SCHEDULES.values()])

    @jax.jit
    def gaps(table, given, penalty, least):
        keys = jax.random.split(jax.random.key(5), SEEDS)

        def one(shape, key, rate):
            optimizer = optim.sgd(lambda step: rate * shape[step])
            return ended(regression, optimizer, key, STEPS, 4, given, penalty) - least

        over_rates = jax.vmap(one, (None, None, 0))
        over_seeds = jax.vmap(over_rates, (None, 0, None))
        return jax.vmap(over_seeds, (0, None, None))(table, keys, RATES).mean(1)

    def measured(wrong, penalty):
        given = regression.data(wrong)
        least = regression.minimum(given[1], penalty).value
        gap = dict(zip(SCHEDULES, np.asarray(gaps(table, given, penalty, least))))
        for name, row in gap.items():
            print(wrong, name, row.round(3))
        return gap

    gap = measured(0.2, 5e-3)
    constant = gap.pop("constant")
    for row in gap.values():
        assert row[3] < 0.5 * constant[3]  # at rate 0.3 noise is what is left
        assert row[0] > 1.3 * constant[0]  # at rate 0.01 the way is
        # Each at its own best rate, they differ little.
        assert 0.6 < row.min() / constant.min() < 1.2
    # Where every image can be fitted the noise dies out by itself, and no decay is needed.
    clean = measured(0.0, 5e-4)
    fixed = clean.pop("constant")
    assert all((fixed[:2] < row[:2]).all() for row in clean.values())


def test_14_coarse_to_fine_finds_what_a_wide_search_misses_at_equal_cost(digits):
    # Cost is in epochs. Wide: 24 trials of 4. Coarse: 48 of 1, then fine: 12 of 4.
    searches = 8
    x, y = (jnp.asarray(a) for a in digits.train)
    valid = tuple(jnp.asarray(a) for a in digits.valid)
    model = models.mlp((24, 10))

    @jax.jit
    def trained(points, epochs):
        def one(point):
            trial = train.classifier(model, optim.momentum(10 ** point[0]), l2=10 ** point[1])

            def step(i, state):
                key = jax.random.fold_in(jax.random.key(1), i)
                picked = jax.random.randint(key, (32,), 0, len(x))
                return trial.step(state, (x[picked], y[picked]), jax.random.key(2))[0]

            start = trial.init(jax.random.key(3), (x, y))
            state = jax.lax.fori_loop(0, epochs * 39, step, start)
            return trial.evaluate(state, valid)["loss"]

        return jax.vmap(one)(points)

    def losses_of(points, epochs):
        """In programs of 48 lanes, whatever their number."""
        parts = [trained(jnp.asarray(p, jnp.float32), epochs) for p in points.reshape(-1, 48, 2)]
        values = np.concatenate(parts).reshape(points.shape[:-1])
        return np.nan_to_num(values, nan=np.inf)

    random = np.random.default_rng(0)
    wide, coarse = (random.uniform(-6.0, 2.0, (searches, n, 2)) for n in (24, 48))
    wide_loss, coarse_loss = losses_of(wide, 4).min(1), losses_of(coarse, 1)
    good = np.take_along_axis(coarse, coarse_loss.argsort(1)[:, :4, None], 1)
    low, high = good.min(1) - 0.25, good.max(1) + 0.25
    fine = random.uniform(low[:, None], high[:, None], (searches, 12, 2))
    fine_loss = losses_of(fine, 4).min(1)
    print(wide_loss, fine_loss)
    assert fine_loss.mean() < 0.9 * wide_loss.mean()
    assert np.sum(fine_loss < wide_loss) > searches / 2
