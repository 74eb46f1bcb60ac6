"""The loss before training: which losses are cross-entropies, of what factor, and what is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.diagnose import trials
from tests.diagnose.arrays import digits
from tests.diagnose.trials import classify, mlp, with_loss

from jdl import diagnose
from jdl.diagnose.initial_loss import entropy_factor, judge_loss
from jdl.nn import initializer

LOGITS = 0.4 * np.random.default_rng(0).normal(size=(2, 64, 7))
ENTROPY = np.log(np.exp(LOGITS).sum(-1, keepdims=True)) - LOGITS


def measured(by_label, factor=1.0, few=1.0):
    """What a loss of so much for each label measures on 64 examples."""
    each = factor * by_label[..., 0]
    return {
        "loss": each.mean(1),
        "of_few": few * each.mean(1),
        "each": each,
        "by_label": factor * by_label,
    }


@pytest.mark.parametrize(
    ("given", "kinds"),
    [
        (measured(ENTROPY), ()),
        (measured(ENTROPY, 100), ("scaled",)),
        (measured(ENTROPY, 0.01), ("scaled",)),
        (measured(ENTROPY, 1.2), ()),
        (measured(ENTROPY, few=32), ("summed",)),
        (measured(ENTROPY, np.nan), ("not_finite",)),
        (measured(ENTROPY) | {"loss": np.full(2, np.log(7) + 0.9)}, ()),
        (measured(ENTROPY) | {"loss": np.full(2, np.log(7) + 1.1)}, ("confident",)),
        # One that has trained before.
        (measured(ENTROPY) | {"loss": np.full(2, 0.01)}, ()),
        # Another loss: nothing is expected of it, whatever its size.
        (measured(np.square(1 - LOGITS), 50), ()),
    ],
)
def test_what_is_said_of_a_loss(given, kinds):
    batch = (np.zeros((64, 3)), np.arange(64) % 7)
    assert judge_loss(given, batch).kinds == kinds


def test_a_loss_that_is_known_says_what_it_expects():
    batch = (np.zeros((64, 3)), np.arange(64) % 7)
    assert judge_loss(measured(ENTROPY), batch).figures["expected"] == pytest.approx(np.log(7))
    found = judge_loss(measured(ENTROPY, 100), batch)
    assert found.figures["expected"] == pytest.approx(100 * np.log(7))
    assert "is 100 times a cross-entropy" in found.advice
    assert "expected" not in judge_loss(measured(np.square(1 - LOGITS)), batch).figures
    assert (
        "has trained before" in judge_loss(measured(ENTROPY - ENTROPY.min() + 1e-3), batch, 2).note
    )


@pytest.mark.parametrize("size", [1e-3, 0.1, 3.0])
@pytest.mark.parametrize("factor", [0.05, 1.0, 7.0])
def test_the_factor_of_a_cross_entropy_is_found_at_any_size_of_logits(size, factor):
    logits = size * np.random.default_rng(1).normal(size=(16, 5))
    entropy = np.log(np.exp(logits).sum(-1, keepdims=True)) - logits
    found = entropy_factor(factor * entropy)
    if factor != 1 and size < 0.01:  # where any loss looks like one
        assert found is None
    else:
        assert found == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0])
@pytest.mark.parametrize("loss", [trials.squares, trials.hinge])
def test_other_losses_of_labels_are_no_cross_entropy(loss, scale):
    make = with_loss(mlp(kernel=initializer.normal(scale)), loss)
    x, y = digits().train
    found = diagnose.loss_at_init(make(1e-3), (x[:64], y[:64]), key=jax.random.key(0))
    assert found.figures["entropy_factor"] is None and found.problems == ()


def test_a_loss_of_the_inputs_has_no_expectation():
    x, y = digits().train
    found = diagnose.loss_at_init(trials.autoencoder(1e-3), (x[:64], y[:64]), key=jax.random.key(0))
    assert "expected" not in found.figures and found.problems == ()


def test_the_loss_of_each_label_is_that_of_the_label():
    x, y = (jnp.asarray(a[:32]) for a in digits().train)
    trial = classify(mlp())(1e-3)

    @jax.jit
    def both(key):
        state = trial.init(key, (x, y))
        found = diagnose.measure_loss(trial, state, (x, y), classes=10)
        return found["by_label"], trial.predict(state, x[:16])

    found, probabilities = both(jax.random.key(3))
    np.testing.assert_allclose(found, -np.log(probabilities), rtol=1e-4)
