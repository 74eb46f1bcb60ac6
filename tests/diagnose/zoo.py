"""Set-ups that are broken, each in one way, and some that are healthy."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl import data, diagnose, losses, models, nn, optim, train
from jdl.nn import initializer
from jdl.train import Trial


@dataclasses.dataclass
class Case:
    """A set-up, the check that must name it, and what it must say."""

    make: Any  # of the rate
    check: str
    kind: str
    rate: float = 3e-3
    dataset: Any = None
    penalty: Any = None
    also: tuple[tuple[str, str], ...] = ()  # names that are as right among all checks


@functools.cache
def digits():
    return data.digits(standardize=True)


@functools.cache
def pictures():
    return data.digits(standardize=True, image=True)


def mlp(sizes=(16,), activation=nn.relu, kernel=initializer.lecun_normal, bias=initializer.zeros):
    layers: list[Any] = []
    for size in sizes:
        layers += [nn.dense(size, kernel_init=kernel, bias_init=bias), activation]
    return nn.chain(*layers, nn.dense(10, kernel_init=kernel))


def classify(model, optimizer=optim.adam, **more):
    return lambda rate: train.classifier(model, optimizer(rate), **more)


def with_loss(model, loss):
    return lambda rate: train.supervised(model, optim.adam(rate), loss)


@jax.custom_vjp
def upside_down(x):
    return jnp.tanh(x)


upside_down.defvjp(lambda x: (jnp.tanh(x), jnp.tanh(x)), lambda y, g: (-(1 - jnp.square(y)) * g,))


def probabilities_as_logits(outputs, y):
    return losses.softmax_cross_entropy(jax.nn.softmax(outputs), y)


def times_100(outputs, y):
    return 100 * losses.softmax_cross_entropy(outputs, y)


def hand_written(apply, init=None, summed=False, evaluate=None, noise=None):
    """A trial that uses no layer of the library: `apply(params, x)` gives logits."""

    def start(key):
        one, two = jax.random.split(key)
        return {
            "in": 0.125 * jax.random.normal(one, (64, 16)),
            "out": 0.25 * jax.random.normal(two, (16, 10)),
        }

    def loss(params, batch, apply=apply):
        each = losses.softmax_cross_entropy(apply(params, batch[0]), batch[1])
        return each.sum() if summed else each.mean()

    def make(rate):
        optimizer = optim.adam(rate)

        def begin(key, batch):
            params = (init or start)(key)
            return {"params": params, "moments": optimizer.init(params)}

        def step(state, batch, key):
            forward = apply if noise is None else functools.partial(noise, key)
            value, grads = jax.value_and_grad(loss)(state["params"], batch, forward)
            updates, moments = optimizer.update(grads, state["moments"], state["params"])
            params = optim.apply_updates(state["params"], updates)
            return {"params": params, "moments": moments}, {"loss": value}

        def judge(state, batch):
            return {"loss": loss(state["params"], batch, evaluate or apply)}

        return Trial(begin, step, judge)

    return make


def two_layers(params, x):
    return jnp.tanh(x @ params["in"]) @ params["out"]


def masked(key, params, x, rate=0.5):
    hidden = jnp.tanh(x @ params["in"])
    keep = jax.random.bernoulli(key, 1 - rate, hidden.shape)
    return jnp.where(keep, hidden / (1 - rate), 0) @ params["out"]


def one_key_twice(key):
    return {
        "in": 0.125 * jax.random.normal(key, (64, 16)),
        "out": 0.25 * jax.random.normal(key, (16, 10)),
    }


def one_old_key_twice(key):
    words = jax.random.key_data(key)  # raw words, which no checker follows
    draw = lambda: jax.random.normal(jax.random.wrap_key_data(words), (16, 16))  # noqa: E731
    first, last = jax.random.split(jax.random.fold_in(jax.random.key(3), words[0]))
    return {
        "in": 0.125 * jax.random.normal(first, (64, 16)),
        "middle": 0.25 * draw(),
        "next": 0.25 * draw(),
        "out": 0.25 * jax.random.normal(last, (16, 10)),
    }


def four_layers(params, x):
    hidden = jnp.tanh(x @ params["in"])
    return jnp.tanh(jnp.tanh(hidden @ params["middle"]) @ params["next"]) @ params["out"]


def detached(params, x):
    return jnp.tanh(x @ jax.lax.stop_gradient(params["in"])) @ params["out"]


def log_of_nothing(params, x):
    return jnp.log(jnp.maximum(x @ params["in"], 0)) @ params["out"]


def mode(model, **flags):
    """`model` with `train` fixed in evaluation or its state left behind in training."""

    def apply(params, state, x, *, key=None, train=False):
        if flags.get("always_training"):
            y, after = model.apply(params, state, x, key=key, train=True)
            return y, after if train else state
        y, _ = model.apply(params, state, x, key=key, train=train)
        return y, state  # what training moved is lost

    return model._replace(apply=apply)


def normed():
    return nn.chain(nn.dense(16), nn.batch_norm(), nn.relu, nn.dense(10))


def frozen_first(rate):
    optimizer = optim.sgd(rate)

    def update(grads, state, params=None, **extra):
        updates, state = optimizer.update(grads, state, params, **extra)
        return (jax.tree.map(jnp.zeros_like, updates[0]), *updates[1:]), state

    return optim.Optimizer(optimizer.init, update)


def with_data(change):
    """Digits whose arrays `change(random, x, y)` has been at; None for a split leaves it."""
    whole = digits()
    random = np.random.default_rng(5)
    return change(random, whole)


def shuffled(random, d):
    return d._replace(
        train=(d.train[0], random.permutation(d.train[1])),
        valid=(d.valid[0], random.permutation(d.valid[1])),
    )


def leaking(random, d):
    x, y = d.valid[0].copy(), d.valid[1].copy()
    at = random.permutation(len(d.train[1]))[: len(y) // 4]
    x[: len(at)], y[: len(at)] = d.train[0][at], d.train[1][at]
    return d._replace(valid=(x, y))


def every_x(f):
    return lambda random, d: d._replace(
        **{n: (f(s[0].copy(), s[1]), s[1]) for n, s in d._asdict().items()}
    )


def set_column(x, column, value):
    x[:, column] = value
    return x


def holed(random, d):
    x = d.train[0].copy()
    x[17, 3] = np.nan
    return d._replace(train=(x, d.train[1]))


def in_order(random, d):
    x, y = (np.concatenate([d.train[i], d.valid[i]]) for i in (0, 1))
    order = np.argsort(y, kind="stable")
    x, y = x[order], y[order]
    return d._replace(train=(x[:1000], y[:1000]), valid=(x[1000:], y[1000:]))


def rare(random, d):
    x, y = d.train
    keep = (y != 3) | (np.cumsum(y == 3) <= 5)
    return d._replace(train=(x[keep], y[keep]))


def negative_l2(outputs_of, strength):
    def make(rate, strength=strength):
        def step(state, batch, key):
            def value(params):
                penalty = sum(jnp.sum(w * w) for w in params.values())
                return (
                    losses.softmax_cross_entropy(outputs_of(params, batch[0]), batch[1]).mean()
                    - strength * penalty
                )

            loss, grads = jax.value_and_grad(value)(state["params"])
            return {"params": jax.tree.map(lambda w, g: w - rate * g, state["params"], grads)}, {
                "loss": loss
            }

        plain = hand_written(outputs_of)(rate)
        return Trial(
            lambda key, batch: {"params": plain.init(key, batch)["params"]}, step, plain.evaluate
        )

    return make


def cases() -> dict[str, Case]:
    relu, tanh = nn.relu, nn.tanh
    fine = classify(mlp())
    constant, normal = initializer.constant, initializer.normal
    away = negative_l2(two_layers, 1e-2)
    found = {
        "zero initialisation": Case(
            classify(mlp((16, 16), kernel=initializer.zeros)), "symmetry", "equal_units"
        ),
        "constant initialisation": Case(
            classify(mlp((16, 16), kernel=constant(0.1))), "symmetry", "equal_units"
        ),
        "tiny initialisation": Case(
            classify(mlp((16,) * 4, tanh, normal(1e-3))), "activation_statistics", "fading"
        ),
        "huge initialisation, tanh": Case(
            classify(mlp((16, 16), tanh, normal(2.0))), "activation_statistics", "saturated"
        ),
        "huge initialisation, relu": Case(
            classify(mlp((16,), relu, normal(1.0))), "loss_at_init", "confident"
        ),
        "sigmoid stack": Case(
            classify(mlp((16,) * 8, nn.sigmoid)),
            "gradient_statistics",
            "vanishing",
            also=(("activation_statistics", "fading"),),
        ),
        "rate too low": Case(fine, "learning_rate_range", "too_low", rate=1e-7),
        "rate too high": Case(
            classify(mlp(), optim.momentum), "learning_rate_range", "too_high", rate=30.0
        ),
        "a step that replaces the weights": Case(
            fine, "update_ratio", "large", rate=1.0, also=(("learning_rate_range", "too_high"),)
        ),
        "a step that rounds away": Case(
            classify(mlp(), optim.sgd),
            "update_ratio",
            "small",
            rate=1e-8,
            also=(("learning_rate_range", "too_low"),),
        ),
        "a layer that stands still": Case(
            classify(mlp(), frozen_first), "update_ratio", "still", rate=0.1
        ),
        "unscaled data": Case(
            fine, "data_report", "scale", dataset=with_data(every_x(lambda x, y: 255 * (x + 1)))
        ),
        "one feature in other units": Case(
            fine,
            "data_report",
            "uneven",
            dataset=with_data(
                every_x(
                    lambda x, y: np.concatenate(
                        [x[:, :20] * 5e-3, x[:, 20:21] * 9, x[:, 21:] * 5e-3], 1
                    )
                )
            ),
        ),
        "labels shuffled": Case(
            fine, "data_report", "labels_unrelated", dataset=with_data(shuffled)
        ),
        "leakage between splits": Case(fine, "data_report", "leakage", dataset=with_data(leaking)),
        "a constant feature": Case(
            fine,
            "data_report",
            "constant",
            dataset=with_data(every_x(lambda x, y: set_column(x, 20, 7.0))),
        ),
        "the label among the features": Case(
            fine,
            "data_report",
            "label_in_features",
            dataset=with_data(every_x(lambda x, y: set_column(x, 20, y / 5.0 - 1))),
        ),
        "a hole in the data": Case(fine, "data_report", "not_finite", dataset=with_data(holed)),
        "split in the order of labels": Case(
            fine, "data_report", "missing_class", dataset=with_data(in_order)
        ),
        "a rare class": Case(fine, "data_report", "imbalance", dataset=with_data(rare)),
        "softmax applied twice": Case(
            with_loss(mlp(), probabilities_as_logits), "overfit_small_batch", "softmax_twice"
        ),
        "loss of the wrong scale": Case(with_loss(mlp(), times_100), "loss_at_init", "scaled"),
        "loss summed over the batch": Case(
            hand_written(two_layers, summed=True),
            "loss_at_init",
            "summed",
            also=(("evaluation_mode", "summed"),),
        ),
        "logarithm of nothing": Case(
            hand_written(log_of_nothing),
            "loss_at_init",
            "not_finite",
            also=(("activation_statistics", "not_finite"),),
        ),
        "sign error in a custom gradient": Case(
            classify(mlp((16, 16), upside_down)), "gradient_check", "wrong_gradient"
        ),
        "detached layer": Case(hand_written(detached), "gradient_check", "detached"),
        "dead ReLU by bias": Case(
            classify(mlp((16,), relu, bias=constant(-30.0))), "activation_statistics", "dead"
        ),
        "dropout left on in evaluation": Case(
            hand_written(
                two_layers,
                evaluate=lambda params, x: masked(jax.random.key(1), params, x),
                noise=masked,
            ),
            "evaluation_mode",
            "noise",
        ),
        "batch norm in training mode in evaluation": Case(
            classify(mode(normed(), always_training=True)), "evaluation_mode", "batch_statistics"
        ),
        "running statistics left behind": Case(
            classify(nn.chain(lambda x: 0.02 * x, mode(normed()))),
            "evaluation_mode",
            "disagrees",
        ),
        "a typed key used twice": Case(
            hand_written(two_layers, one_key_twice), "key_reuse", "reused"
        ),
        "raw words of a key used twice": Case(
            hand_written(four_layers, one_old_key_twice), "key_reuse", "equal_layers"
        ),
        "the same mask in every step": Case(
            hand_written(
                two_layers, noise=lambda key, params, x: masked(jax.random.key(4), params, x)
            ),
            "key_reuse",
            "constant_key",
        ),
        "one start for all seeds": Case(
            hand_written(two_layers, lambda key: one_distinct_start()), "key_reuse", "same_start"
        ),
        "exploding linear net": Case(
            classify(mlp((16,) * 8, nn.identity, normal(1.5))),
            "gradient_statistics",
            "exploding",
            also=(("activation_statistics", "growing"),),
        ),
        "penalty of the wrong sign": Case(
            away,
            "regularization_raises_loss",
            "lowers",
            rate=0.1,
            penalty=(away(0.1, 0.0), away(0.1)),
        ),
        "penalty that drowns the loss": Case(
            classify(mlp(), l2=30.0),
            "regularization_raises_loss",
            "dominates",
            penalty=(fine(3e-3), classify(mlp(), l2=30.0)(3e-3)),
        ),
        "penalty that reaches nothing": Case(
            fine, "regularization_raises_loss", "no_effect", penalty=(fine(3e-3), fine(3e-3))
        ),
    }
    return {name: _filled(case) for name, case in found.items()}


def one_distinct_start():
    one, two = jax.random.split(jax.random.key(8))
    return {
        "in": 0.125 * jax.random.normal(one, (64, 16)),
        "out": 0.25 * jax.random.normal(two, (16, 10)),
    }


def _filled(case: Case) -> Case:
    return case if case.dataset is not None else dataclasses.replace(case, dataset=digits())


def only(case: Case, key: Any) -> Any:
    """What the one check that must name the case finds."""
    x, y = case.dataset.train
    batch, probe = (x[:32], y[:32]), (x[:256], y[:256])
    trial = case.make(case.rate)
    checks = {
        "data_report": lambda: diagnose.data_report(case.dataset),
        "symmetry": lambda: diagnose.symmetry(trial, batch, key=key),
        "loss_at_init": lambda: diagnose.loss_at_init(trial, probe, key=key),
        "activation_statistics": lambda: diagnose.activation_statistics(trial, probe, key=key),
        "gradient_statistics": lambda: diagnose.gradient_statistics(trial, batch, key=key),
        "gradient_check": lambda: diagnose.gradient_check(trial, batch, key=key),
        "key_reuse": lambda: diagnose.key_reuse(trial, batch, key=key),
        "evaluation_mode": lambda: diagnose.evaluation_mode(
            case.make, batch, key=key, rates=[case.rate, 3 * case.rate]
        ),
        "update_ratio": lambda: diagnose.update_ratio(trial, batch, key=key),
        "learning_rate_range": lambda: diagnose.learning_rate_range(
            case.make, (x, y), key=key, rate=case.rate, steps=60
        ),
        "overfit_small_batch": lambda: diagnose.overfit_small_batch(
            case.make, (x, y), key=key, rates=[1e-3, 1e-2, 1e-1]
        ),
        "regularization_raises_loss": lambda: diagnose.regularization_raises_loss(
            *case.penalty, batch, key=key
        ),
    }
    return checks[case.check]()


def line(random, d=None):
    """A regression: three numbers from eight."""
    x = random.normal(size=(600, 8)).astype(np.float32)
    y = np.tanh(x @ random.normal(size=(8, 3))) + 0.05 * random.normal(size=(600, 3))
    return data.from_arrays(x, y.astype(np.float32))


def healthy() -> dict[str, tuple[Any, Any, float]]:
    """By name `(make, dataset, rate)`."""
    images = pictures()
    dropped = nn.chain(nn.dense(32), nn.batch_norm(), nn.relu, nn.dropout(0.3), nn.dense(10))
    return {
        "an MLP with ReLU and Adam": (classify(models.mlp((32, 10))), digits(), 3e-3),
        "an MLP with tanh and Nesterov's momentum": (
            classify(models.mlp((32, 32, 10), activation=nn.tanh), optim.nesterov),
            digits(),
            0.03,
        ),
        "dropout, batch norm, AdamW and a penalty": (
            classify(dropped, optim.adamw, l2=1e-4),
            digits(),
            3e-3,
        ),
        "a convolutional net with batch norm": (
            classify(models.cnn(10, features=(8, 16), batch_norm=True), optim.momentum),
            images,
            0.03,
        ),
        "softmax regression by gradient descent": (
            classify(models.mlp((10,)), optim.sgd),
            digits(),
            0.1,
        ),
        "a regression with RMSProp": (
            lambda rate: train.regressor(
                nn.chain(nn.dense(32), nn.gelu, nn.dense(3)), optim.rmsprop(rate)
            ),
            line(np.random.default_rng(2)),
            3e-3,
        ),
        "a vision transformer with Adam": (
            classify(models.vit(10, patch=4, depth=2, features=32, heads=2)),
            images,
            1e-3,
        ),
        "a trial written by hand": (hand_written(two_layers), digits(), 3e-3),
    }
