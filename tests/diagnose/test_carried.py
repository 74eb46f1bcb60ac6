"""What a state carries: optimizers that are made anew, and statistics that stand still."""

import inspect

import jax
import jax.numpy as jnp
import pytest
from tests.diagnose import trials
from tests.diagnose.arrays import digits
from tests.diagnose.trials import classify, mlp, mode, normed

from jdl import diagnose, optim, train
from jdl.optim.names import OPTIMIZERS
from jdl.train import Trial


def looked_at(trial):
    x, y = digits().train
    return diagnose.carried_state(trial, (x[:32], y[:32]), key=jax.random.key(5))


def by_hand(step):
    """A weight and a velocity, which `step(w, v, g)` moves."""

    def init(key, batch):
        return {"params": jnp.ones((64, 3)), "velocity": jnp.zeros((64, 3)), "count": jnp.zeros(())}

    def loss(w, batch):
        return jnp.mean(jnp.square(batch[0] @ w - 1))

    def move(state, batch, key):
        value, grad = jax.value_and_grad(loss)(state["params"], batch)
        w, v = step(state["params"], state["velocity"], grad)
        return {"params": w, "velocity": v, "count": state["count"] + 1}, {"loss": value}

    return Trial(init, move, lambda state, batch: {"loss": loss(state["params"], batch)})


@pytest.mark.parametrize(
    ("step", "unread"),
    [
        (lambda w, v, g: (w - 0.1 * (0.9 * v + g), 0.9 * v + g), False),
        (lambda w, v, g: (w - 0.1 * g, g), True),  # made anew in each step
        (lambda w, v, g: (w - 0.1 * g, v), True),  # left at 0
        (lambda w, v, g: (w - 0.1 * g, 0.9 * v + 0.1 * w), False),  # an average for later
        (lambda w, v, g: (w - 0.1 * jax.jit(lambda a: 0.9 * a)(v + g), v + g), False),
    ],
)
def test_a_velocity_is_of_use_if_it_is_read(step, unread):
    found = looked_at(by_hand(step))
    assert found.figures["carried"] == ["velocity"]
    assert found.kinds == (("unread",) if unread else ())
    assert found.figures["unread"] == (["velocity"] if unread else [])


def test_running_statistics_must_move():
    assert looked_at(classify(normed())(1e-3)).problems == ()
    for flags in ({"never_training": True}, {}):
        found = looked_at(classify(mode(normed(), **flags))(1e-3))
        assert found.kinds == ("stands_still",) and "model_state/1/mean" in found.advice
    # Those of a trained network may: batch norm is often frozen in fine-tuning.
    frozen = mode(normed(), never_training=True)
    assert looked_at(trials.fine_tuned(frozen)(1e-3)).problems == ()


def test_a_state_of_parameters_alone_is_fine():
    assert looked_at(classify(mlp(), optim.sgd)(0.1)).problems == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_reads_what_it_keeps(name):
    make = OPTIMIZERS[name]
    given = {"key": jax.random.key(0)} if "key" in inspect.signature(make).parameters else {}
    assert looked_at(train.classifier(mlp((8,)), make(1e-3, **given))).problems == ()
