"""What short runs may say: of slow networks, of trained ones, of few examples, of few reports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.diagnose.arrays import digits
from tests.diagnose.trials import classify, hand_written, mlp, two_layers

from jdl import diagnose
from jdl.diagnose.overfit import judge_overfit
from jdl.diagnose.rate import Runs, judge_rates

RATES = np.geomspace(1e-3, 1e3, 7)


def runs_to(scores, start):
    losses = np.stack([np.linspace(start, score, 40) for score in scores])[:, None]
    return Runs(RATES, losses, {}, {}, None)


@pytest.mark.parametrize(
    ("rate", "kinds"),
    [(1.0, ()), (0.1, ()), (0.05, ()), (0.01, ("too_low",)), (1e-3, ("too_low",))],
)
def test_a_rate_not_far_below_the_best_may_only_need_longer(rate, kinds):
    # At the rate 1 as much is learnt in 40 steps as in 400 at a tenth of it.
    found = judge_rates(runs_to([2.3, 2.28, 2.15, 0.5, 1.9, np.nan, np.nan], 2.3), rate)
    assert found.kinds == kinds, found.advice


@pytest.mark.parametrize(
    ("end", "kinds"),
    [(0.01, ()), (0.02, ()), (0.5, ()), (1.6, ("too_high",)), (3.0, ("too_high",))],
)
def test_of_a_trained_network_only_what_it_forgets_counts(end, kinds):
    runs = runs_to([0.02, 0.02, 0.02, 0.01, end, np.nan, np.nan], 0.02)
    assert judge_rates(runs, 10.0, chance=np.log(10)).kinds == kinds
    assert judge_rates(runs, 1e-3, chance=np.log(10)).kinds == ()
    # That no rate improves it is no fault; of a network that knows nothing it is one.
    still = runs_to([0.02] * 7, 0.02)
    assert judge_rates(still, 1.0, chance=np.log(10)).kinds == ()
    assert judge_rates(still, 1.0).kinds == ("no_rate_trains",)


def learnt(losses):
    losses = np.asarray(losses, float)[None, None]
    return Runs(np.ones(1), losses, {"loss": losses[..., [0, -1]]}, {}, None)


LABELS = np.zeros((4, 3)), np.arange(4)


@pytest.mark.parametrize(
    ("losses", "chance", "kinds"),
    [
        (np.linspace(1.4, 0.04, 50), None, ()),
        (np.append(np.linspace(1.4, 0.6, 50), [0.6] * 150), None, ("cannot",)),
        # In fewer than 200 steps it is enough to be half way.
        (np.append(np.linspace(1.4, 0.6, 20), [0.6] * 30), None, ()),
        (np.append(np.linspace(1.4, 0.72, 20), [0.72] * 30), 0.0, ("cannot",)),
        # Still on its way when the run ends.
        (np.linspace(1.4, 0.9, 50), None, ()),
        (np.linspace(1.4, 1.35, 50), None, ("cannot",)),
        # Known by heart from the start: log(4) is 1.39.
        (np.full(50, 0.01), None, ()),
        (np.full(50, 0.01), 0.0, ("cannot",)),
        # log(1 + 3 / e) = 0.744 is left where a softmax is applied twice, to a cross-entropy.
        (np.append(np.linspace(1.4, 0.75, 20), [0.75] * 30), None, ("softmax_twice",)),
        (np.append(np.linspace(1.4, 0.75, 20), [0.75] * 30), 0.0, ("cannot",)),
    ],
)
def test_a_few_examples_are_learnt_known_or_on_the_way(losses, chance, kinds):
    found = judge_overfit(learnt(losses), LABELS, chance)
    assert found.kinds == kinds, found.advice


@pytest.mark.parametrize("loss", [np.linspace(2.3, 2.2, 20), np.append([2.3, 2.0], [1.8] * 18)])
def test_a_short_curve_that_does_not_fall_is_no_fault(loss):
    chance = np.log(10)
    assert diagnose.read_curve({"train_loss": loss}, chance=chance).kinds == ("underfit",)
    assert diagnose.read_curve({"train_loss": loss}, chance=chance, short=True).kinds == ()


def test_weights_drawn_and_replaced_are_no_draws():
    """As where trained weights are loaded into a network that was just initialised."""
    plain = classify(mlp())(0.1)
    batch = tuple(jnp.asarray(a[:8]) for a in digits().train)
    known = jax.tree.map(np.asarray, jax.jit(plain.init)(jax.random.key(2), batch).params)

    def init(key, batch):
        return plain.init(key, batch)._replace(params=known)

    found = diagnose.key_reuse(plain._replace(init=init), batch, key=jax.random.key(0))
    assert found.problems == () and found.figures["init_draws"] == 0
    drawn = hand_written(two_layers, lambda key: dict(zip(("in", "out"), fixed())))
    found = diagnose.key_reuse(drawn(0.1), batch, key=jax.random.key(0))
    assert found.kinds == ("same_start",)


def fixed():
    one, two = jax.random.split(jax.random.key(9))
    return jax.random.normal(one, (64, 16)), jax.random.normal(two, (16, 10))
