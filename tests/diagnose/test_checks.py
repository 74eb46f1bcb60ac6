"""Figures against what can be worked out by hand, curves, verdicts and their order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import data, diagnose, nn, optim, train
from jdl.diagnose import Finding, Problem
from jdl.diagnose.activation import judge_activations
from jdl.diagnose.gradient import judge_gradients, judge_updates
from jdl.diagnose.mode import judge_mode
from jdl.diagnose.rate import Runs, judge_rates
from jdl.train import Trial

FALLING = 0.1 + 2.2 * np.exp(-np.arange(20) / 3)


@pytest.mark.parametrize(
    ("kind", "train_loss", "valid_loss"),
    [
        (None, FALLING, FALLING + 0.05),
        ("diverged", np.append(FALLING[:8], [np.nan] * 12), None),
        ("diverged", np.linspace(2.3, 9.0, 20), None),
        ("flat_start", np.append([2.3, 2.299, 2.298, 2.297, 2.296], FALLING), None),
        ("underfit", np.linspace(2.3, 2.2, 20), None),
        ("underfit", np.append([2.3, 2.0, 1.8], [1.6] * 17), None),
        ("overfit", FALLING * 0.3, np.append(FALLING[:8], np.linspace(0.3, 1.2, 12))),
        ("plateau", np.append([2.3, 1.6, 1.2, 1.0], [0.9] * 16), None),
        (None, np.array([2.3, 1.0, 0.5]), None),
        # As few reports as `examine` has, and its 5 times as many steps.
        ("unlike_training", FALLING, np.array([60.0, 50.0, 53.0, 54.0, 52.0, 53.0])),
        ("unlike_training", FALLING, np.array([2.3, 2.4, 2.9, 3.3, 3.6, 3.8])),
        ("unlike_training", FALLING, np.array([2.3, 2.2, 2.1, 2.0, 1.9, np.nan])),
        (None, FALLING, np.array([3.5, 3.4, 3.2, 3.1, 3.0, 2.9])),
    ],
)
def test_a_curve_is_read(kind, train_loss, valid_loss):
    curves = {"train_loss": train_loss}
    curves |= {} if valid_loss is None else {"valid_loss": valid_loss}
    found = diagnose.read_curve(curves, chance=np.log(10))
    assert found.kinds == ((kind,) if kind else ()), found.advice


def runs_at(scores, start=2.3):
    rates = np.geomspace(1e-4, 1e4, len(scores))
    losses = np.stack([np.linspace(start, score, 40) for score in scores])[:, None]
    return Runs(rates, losses, {}, {}, None)


@pytest.mark.parametrize(
    ("scores", "rate", "kinds"),
    [
        ([2.3, 2.2, 1.0, 0.3, 1.5, np.nan, np.nan], 0.9, ()),
        ([2.3, 2.2, 1.0, 0.3, 1.5, np.nan, np.nan], 1e-4, ("too_low",)),
        ([2.3, 2.2, 1.0, 0.3, 1.5, np.nan, np.nan], 1e3, ("too_high",)),
        ([2.3, 2.2, 1.0, 0.3, 3.5, np.nan, np.nan], 21.0, ("too_high",)),
        ([2.3] * 7, 1.0, ("no_rate_trains",)),
        ([np.nan] * 7, 1.0, ("no_rate_trains",)),
    ],
)
def test_a_rate_is_judged_among_others(scores, rate, kinds):
    found = judge_rates(runs_at(scores), rate)
    assert found.kinds == kinds, found.advice
    if "best" in found.figures:
        assert found.figures["best"] == pytest.approx(1.0)
        assert found.figures["low"] <= 1.0 <= found.figures["high"]


@pytest.mark.parametrize(
    ("place", "progress", "kind", "verdict"),
    [
        # Of the best's progress, below the best rate: a third is fair, a tenth is something.
        (1, 0.34, None, "fine"),
        (1, 0.32, "too_low", "suspicious"),
        (1, 0.11, "too_low", "suspicious"),
        (1, 0.09, "too_low", "wrong"),
        (1, -0.2, "too_low", "wrong"),
        # Above it: half is fair, anything is something.
        (5, 0.51, None, "fine"),
        (5, 0.49, "too_high", "suspicious"),
        (5, 0.01, "too_high", "suspicious"),
        (5, -0.01, "too_high", "wrong"),
        (5, np.nan, "too_high", "wrong"),
    ],
)
def test_a_rate_is_judged_by_its_share_of_the_best_progress(place, progress, kind, verdict):
    scores = [2.3, 2.2, 1.9, 0.3, 1.9, 2.2, np.nan]
    scores[place] = 2.3 - 2.0 * progress
    runs = runs_at(scores)
    found = judge_rates(runs, float(runs.rates[place]))
    assert (found.kinds, found.verdict) == ((kind,) if kind else (), verdict), found.advice


@pytest.mark.parametrize("share", [0.79, 0.81])
@pytest.mark.parametrize("place", [2, 4])
def test_rates_that_train_make_four_fifths_of_the_best_progress(place, share):
    scores = [2.3, 2.2, 1.9, 0.3, 1.9, 2.2, np.nan]
    scores[place] = 2.3 - 2.0 * share
    figures = judge_rates(runs_at(scores), 1.0).figures
    end = figures["low" if place < 3 else "high"]
    rates = runs_at(scores).rates
    assert end == pytest.approx(rates[place] if share > 0.8 else rates[3])
    assert figures["high" if place < 3 else "low"] == pytest.approx(rates[3])


@pytest.mark.parametrize(
    ("least_at", "last", "kind"),
    [
        (13, 1.0, "overfit"),  # of 20 reports, so that it rose in the last three tenths
        (14, 1.0, None),
        (8, 0.64, "overfit"),  # more than a quarter above the least, 0.5
        (8, 0.62, None),
    ],
)
def test_overfitting_is_a_rise_that_lasted(least_at, last, kind):
    train_loss = np.linspace(2.3, 0.05, 20)
    falling = np.linspace(2.3, 0.5, least_at + 1)
    valid_loss = np.append(falling, [last] * (20 - len(falling)))
    found = diagnose.read_curve(
        {"train_loss": train_loss, "valid_loss": valid_loss}, chance=np.log(10)
    )
    assert found.kinds == ((kind,) if kind else ()), found.advice


@pytest.mark.parametrize(
    ("train_loss", "kind"),
    [
        (np.linspace(2.0, 3.1, 20), "diverged"),  # more than half above the start
        (np.linspace(2.0, 2.9, 20), "underfit"),  # which is above nine tenths of chance
        (np.append(np.linspace(2.3, 1.0, 10), [0.24] * 10), "plateau"),  # chance is 2.3
        (np.append(np.linspace(2.3, 1.0, 10), [0.22] * 10), None),
        (np.append(np.linspace(2.3, 1.0, 10), np.linspace(1.0, 0.978, 10)), "plateau"),
        (np.append(np.linspace(2.3, 1.2, 10), np.linspace(1.2, 1.15, 10)), None),
        (np.linspace(2.3, 2.06, 20), None),
        (np.linspace(2.3, 2.08, 20), "underfit"),
    ],
)
def test_both_sides_of_what_a_curve_is_judged_by(train_loss, kind):
    found = diagnose.read_curve({"train_loss": train_loss}, chance=np.log(10))
    assert found.kinds == ((kind,) if kind else ()), found.advice


def test_shares_are_judged_by_their_worst_layer():
    def layer(**figures):
        return {k: np.array([v, v]) for k, v in ({"mean": 0.0, "spread": 1.0} | figures).items()}

    layers = {"input": layer(), "0 dense": layer(), "1 relu": layer(dead=0.1)}
    layers |= {f"{i} dense": layer() for i in range(2, 12)}
    assert judge_activations(layers).problems == ()
    found = judge_activations(layers | {"1 relu": layer(dead=0.3)})
    assert (found.verdict, found.kinds) == ("suspicious", ("dead",)) and "30%" in found.advice
    assert judge_activations(layers | {"1 relu": layer(dead=0.6)}).verdict == "wrong"
    # Layer 10 comes after layer 9: were names sorted as words, 9 would be last.
    assert judge_activations(layers | {"10 dense": layer(spread=1e-4)}).kinds == ("fading",)
    assert judge_activations(layers | {"11 dense": layer(spread=1e-9)}).problems == ()
    assert judge_activations(layers | {"10 dense": layer(spread=1e4)}).kinds == ("growing",)
    assert judge_activations(layers | {"9 dense": layer(mean=np.nan)}).kinds == ("not_finite",)


def test_gradients_are_judged_by_first_and_last():
    def measured(first, last, leaf=1.0):
        return {
            "arriving": {"0 a": np.array([first]), "2 b": np.array([last])},
            "leaves": {"0/kernel": np.array([leaf])},
            "norm": np.array([1.0]),
        }

    assert judge_gradients(measured(0.01, 1.0)).problems == ()
    assert judge_gradients(measured(1e-4, 1.0)).kinds == ("vanishing",)
    assert judge_gradients(measured(1e4, 1.0)).kinds == ("exploding",)
    assert judge_gradients(measured(np.nan, 1.0)).kinds == ("not_finite",)
    assert judge_gradients(measured(1.0, 1.0, leaf=0.0)).kinds == ("no_gradient",)


def activations(**figures):
    """A network whose ReLU, tanh or last hidden product has the given figure."""
    names = {"dead": "1 relu", "saturated": "3 tanh", "spread": "4 dense"}
    layers = {name: {"mean": 0.0, "spread": 1.0} for name in ("input", "0 dense", "4 dense")}
    layers |= {"1 relu": {"mean": 0.0, "spread": 1.0, "dead": 0.0}}
    layers |= {"3 tanh": {"mean": 0.0, "spread": 1.0, "saturated": 0.0}}
    layers |= {"5 dense": {"mean": 0.0, "spread": 1e-9}}  # which may start at 0
    for figure, value in figures.items():
        layers[names[figure]][figure] = value
    return judge_activations(
        {name: {k: np.array([v, v]) for k, v in layer.items()} for name, layer in layers.items()}
    )


def gradients(ratio):
    arriving = {"0 a": np.array([ratio]), "2 b": np.array([1.0])}
    return judge_gradients(
        {"arriving": arriving, "leaves": {"0/kernel": np.ones(1)}, "norm": np.ones(1)}
    )


def updates(ratio):
    return judge_updates({"0": np.array([ratio]), "1": np.array([ratio / 2])})


@pytest.mark.parametrize(
    ("judge", "kind", "suspicious", "wrong"),
    [
        (lambda share: activations(dead=share), "dead", 0.25, 0.5),
        (lambda share: activations(saturated=share), "saturated", 0.3, 0.6),
        (lambda factor: activations(spread=factor), "growing", 1e3, 1e6),
        (lambda factor: activations(spread=1 / factor), "fading", 1e3, 1e6),
        (gradients, "exploding", 1e3, 1e6),
        (lambda factor: gradients(1 / factor), "vanishing", 1e3, 1e5),
        (updates, "large", 0.1, 1.0),
        (lambda factor: updates(1 / factor), "small", 1e5, 1e7),
    ],
)
def test_every_threshold_from_both_sides(judge, kind, suspicious, wrong):
    below, above = judge(0.98 * suspicious), judge(1.02 * suspicious)
    assert (below.verdict, below.kinds) == ("fine", ())
    assert (above.verdict, above.kinds) == ("suspicious", (kind,))
    assert judge(0.98 * wrong).verdict == "suspicious"
    assert (judge(1.02 * wrong).verdict, judge(1.02 * wrong).kinds) == ("wrong", (kind,))


def test_the_update_ratio_is_change_over_weight():
    before = {"w": jnp.array([[3.0, 4.0]]), "b": jnp.array([1.0])}
    after = {"w": jnp.array([[3.0, 4.5]]), "b": jnp.array([9.0])}
    measured = diagnose.measure_updates(before, after)
    assert set(measured) == {"w"} and float(measured["w"]) == pytest.approx(0.1)
    ratios = {"0": np.array([1e-3]), "1": np.array([0.0])}
    assert judge_updates(ratios).kinds == ("still",)
    assert judge_updates({"0": np.array([1e-8])}).verdict == "wrong"
    assert judge_updates({"0": np.array([0.3])}).kinds == ("large",)


def test_modes_are_told_apart():
    fine = {"before": 2.3, "trained": 0.5, "evaluated": 0.5, "whole": 0.5, "moved": 0.5}
    fine |= {"one": 0.4, "other": 0.6}

    def kinds(**change):
        return judge_mode({k: np.array([v]) for k, v in (fine | change).items()}).kinds

    assert kinds() == ()
    assert kinds(moved=0.51) == ("noise",)
    assert kinds(one=0.3) == ("batch_statistics",)
    assert kinds(one=0.2, other=0.3) == ("summed",)
    assert kinds(evaluated=2.3) == ("disagrees",)


def polynomial(wrong=1.0):
    """A trial whose loss is a cubic, with the derivative times `wrong`; a part has a kink."""

    @jax.custom_vjp
    def cube(w):
        return jnp.sum(w**3)

    cube.defvjp(lambda w: (cube(w), w), lambda w, g: (wrong * 3 * w**2 * g,))

    def loss(state, batch):
        return cube(state["a"]) + jnp.sum(jnp.abs(state["b"])) * jnp.mean(batch[0])

    return Trial(
        init=lambda key, batch: {"a": jnp.array([[0.7, -1.3]]), "b": jnp.zeros((1, 2))},
        step=lambda state, batch, key: (state, {"loss": loss(state, batch)}),
        evaluate=lambda state, batch: {"loss": loss(state, batch)},
    )


def test_a_gradient_is_compared_leaf_by_leaf():
    batch = (np.full((4, 1), 1.5, np.float32), np.zeros(4, np.int32))
    right = diagnose.gradient_check(polynomial(), batch, key=jax.random.key(0))
    rows = right.figures["leaves"]
    assert right.verdict == "fine" and rows["a"]["error"] < 1e-9
    # The absolute value at 0: every one of its directions is at the kink.
    assert rows["b"]["kinks"] == 3 and rows["b"]["compared"] == 0 and rows["a"]["kinks"] == 0
    for factor, verdict in ((1.001, "suspicious"), (1.5, "wrong"), (-1.0, "wrong")):
        found = diagnose.gradient_check(polynomial(factor), batch, key=jax.random.key(0))
        assert (found.verdict, found.kinds) == (verdict, ("wrong_gradient",))
        assert found.figures["leaves"]["a"]["error"] == pytest.approx(
            abs(factor - 1) / max(abs(factor), 1), rel=1e-4
        )
    assert "opposite sign" in found.advice
    with pytest.raises(ValueError, match="`method` must be"):
        diagnose.gradient_check(polynomial(), batch, key=jax.random.key(0), method="magic")


def test_dead_units_are_those_of_the_whole_data_set():
    model = nn.chain(nn.dense(4), nn.relu, nn.dense(2))
    x = np.zeros((300, 3), np.float32)
    x[299, 0] = 1.0  # only the last example switches unit 1 on
    trial = train.classifier(model, optim.sgd(0.1))
    state = trial.init(jax.random.key(0), (x, None))
    kernel = jnp.zeros((3, 4)).at[0, 1].set(2.0)
    first = {"kernel": kernel, "bias": jnp.array([1.0, -1.0, -1.0, 0.5])}
    state = state._replace(params=(first, *state.params[1:]))
    found = diagnose.dead_units(trial, state, (x, np.zeros(300, np.int32)), batch_size=100)
    assert found.figures["dead"]["1 relu"].tolist() == [False, False, True, False]
    assert found.figures["examples"] == 300 and found.verdict == "fine"


def test_a_unit_is_dead_if_it_is_off_for_every_example():
    """On for one, for half or for all of the examples, it is none."""
    x = np.zeros((64, 3), np.float32)
    x[:32, 0], x[63, 1] = 1.0, 1.0
    trial = train.classifier(nn.chain(nn.dense(5), nn.relu, nn.dense(2)), optim.sgd(0.1))
    state = trial.init(jax.random.key(0), (x, jnp.zeros(64, jnp.int32)))
    kernel = jnp.zeros((3, 5)).at[0, 1].set(2.0).at[1, 2].set(2.0)
    first = {"kernel": kernel, "bias": jnp.array([1.0, -1.0, -1.0, -1.0, -2.0])}
    state = state._replace(params=(first, *state.params[1:]))
    batch = jnp.asarray(x), jnp.zeros(64, jnp.int32)
    measured = diagnose.measure_activations(trial, state, batch)
    assert float(measured["1 relu"]["dead"]) == pytest.approx(2 / 5)
    seen = diagnose.monitored(trial, ["dead_share"]).evaluate(state, batch)
    assert float(seen["dead_share"]) == pytest.approx(2 / 5)
    found = diagnose.dead_units(trial, state, batch, batch_size=16)
    assert found.figures["dead"]["1 relu"].tolist() == [False, False, False, True, True]


def test_what_standardising_would_change_is_said():
    random = np.random.default_rng(3)
    x = random.normal(size=(400, 5)) * [1, 2, 30, 1, 1] + [0, 500, 0, 0, 0]
    y = (x[:, 0] > 0).astype(np.int32)
    found = diagnose.data_report(data.from_arrays(x, y))
    assert found.kinds == ("scale",) and found.figures["largest_mean"] == pytest.approx(
        500, rel=0.01
    )
    assert found.figures["largest_std"] == pytest.approx(30, rel=0.1)
    assert diagnose.data_report(data.from_arrays(x, y, standardize=True)).problems == ()


def test_leakage_is_counted_to_the_example():
    random = np.random.default_rng(3)
    x = random.normal(size=(300, 5)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int32)
    held = x[200:].copy()
    held[:7] = x[:7]
    found = diagnose.data_report(((x[:200], y[:200]), (held, y[200:]), None))
    assert found.figures["leakage"] == {"valid": pytest.approx(0.07)}
    assert found.kinds == ("leakage",) and found.verdict == "suspicious"


def test_the_worst_comes_first_and_causes_before_what_they_cause():
    mild, bad = (lambda k: Problem(k, "suspicious", k)), (lambda k: Problem(k, "wrong", k))
    findings = [
        Finding("read_curve", {}, "", (bad("diverged"),)),
        Finding("loss_at_init", {}, "", (mild("confident"),)),
        Finding("gradient_check", {}, "fine so far"),
        Finding("data_report", {}, "", (mild("constant"), bad("leakage"))),
    ]
    order = [found.problem.kind for found in diagnose.by_severity(findings)]
    assert order == ["leakage", "diverged", "constant", "confident"]
    stuck = [*findings, Finding("overfit_small_batch", {}, "", (bad("cannot"),))]
    order = [found.problem.kind for found in diagnose.by_severity(stuck)]
    assert order == ["leakage", "constant", "confident", "cannot", "diverged"]
    assert diagnose.worst(findings) == "wrong" and findings[2].advice == "fine so far"
    assert findings[3].verdict == "wrong" and findings[3].kinds == ("leakage", "constant")


def test_parameters_are_found_in_any_state():
    w = {"w": 1.0}
    for state in (train.TrainState(w, {}, 2.0), {"params": w, "m": 2.0}, (w, 2.0), [w, 2.0], w):
        assert diagnose.params_of(state) == w
        changed = diagnose.subject.with_params(state, {"w": 5.0})
        assert diagnose.params_of(changed) == {"w": 5.0} and type(changed) is type(state)


def test_a_multiple_of_a_rate_is_that_rate():
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    batch = jnp.asarray(x), jnp.zeros(8, jnp.int32)

    def after(trial):
        state = trial.init(jax.random.key(0), batch)
        for i in range(3):
            state, _ = trial.step(state, batch, jax.random.key(i + 1))
        return jax.tree.leaves(state.params)

    def at(rate):
        return train.classifier(nn.dense(2), optim.adam(rate))

    for a, b in zip(after(diagnose.rescaled(at(0.02))(5.0)), after(at(0.1))):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("bad", [np.nan, -0.3, 0.0, np.inf])
def test_rates_that_are_none_are_refused(bad):
    def never(rate):
        raise AssertionError("nothing is traced")

    split = np.zeros((4, 2), np.float32), np.zeros(4, np.int32)
    options = {"key": jax.random.key(0)}
    with pytest.raises(ValueError, match=r"`rate` must be in \(0, inf\), got rate="):
        diagnose.learning_rate_range(never, split, rate=bad, **options)
    with pytest.raises(ValueError, match=r"`rates` must be in \(0, inf\), got rates="):
        diagnose.learning_rate_range(never, split, rate=0.1, rates=[0.2, bad], **options)
    with pytest.raises(ValueError, match=r"`rates` must be in \(0, inf\), got rates="):
        diagnose.overfit_small_batch(never, split, rates=[0.2, bad], **options)
    with pytest.raises(ValueError, match=r"`rate` must be in \(0, inf\), got rate="):
        diagnose.examine(never, (split, None, None), rate=bad)
