"""Calibration: bins against a loop, and a temperature found again that was put in."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special

from jdl import train
from jdl.plot import reliability_figure

RANDOM = np.random.default_rng(2)
LOGITS = RANDOM.normal(0, 1.7, (4000, 5))
LABELS = np.array([RANDOM.choice(5, p=p) for p in special.softmax(LOGITS, 1)])


def probabilities(temperature=1.0):
    return special.softmax(LOGITS / temperature, 1)


def by_loop(said, labels, bins):
    confidence, accuracy, count = np.full(bins, np.nan), np.full(bins, np.nan), np.zeros(bins)
    largest = said.max(1)
    for b in range(bins):
        inside = (largest > b / bins) & (largest <= (b + 1) / bins)
        count[b] = inside.sum()
        if count[b]:
            confidence[b] = largest[inside].mean()
            accuracy[b] = (said.argmax(1) == labels)[inside].mean()
    filled = count > 0
    error = np.sum(count[filled] * np.abs(accuracy - confidence)[filled]) / len(labels)
    return confidence, accuracy, count, error


def test_bins_by_loop(x64):
    said = probabilities(0.6)
    confidence, accuracy, count, error = by_loop(said, LABELS, 12)
    of_bin = train.reliability(said, LABELS, 12)
    np.testing.assert_array_equal(of_bin.examples, count)
    np.testing.assert_allclose(of_bin.confidence, confidence, rtol=1e-12)
    np.testing.assert_allclose(of_bin.accuracy, accuracy, rtol=1e-12)
    assert np.isnan(of_bin.accuracy[0])  # with five classes no confidence is below 0.2
    assert float(train.calibration_error(said, LABELS, 12)) == pytest.approx(error, rel=1e-12)


def test_edges_belong_to_the_bin_below(x64):
    said = np.array([[0.5, 0.5], [1.0, 0.0], [0.75, 0.25]])
    assert train.reliability(said, np.array([0, 0, 0]), 4).examples.tolist() == [0, 1, 1, 1]


def test_labels_drawn_from_the_probabilities_are_calibrated():
    assert float(train.calibration_error(probabilities(), LABELS)) < 0.03
    assert float(train.calibration_error(probabilities(0.4), LABELS)) > 0.1


@pytest.mark.parametrize("temperature", [0.4, 2.5])
def test_the_temperature_is_found_again(x64, temperature):
    said = probabilities(1 / temperature)

    def loss(t):
        return -np.log(special.softmax(np.log(said) / t, 1)[np.arange(4000), LABELS]).mean()

    best = optimize.minimize_scalar(loss, bounds=(0.05, 20), method="bounded").x
    found = float(jax.jit(train.fit_temperature)(jnp.asarray(said), jnp.asarray(LABELS)))
    assert found == pytest.approx(best, rel=1e-4) and found == pytest.approx(temperature, rel=0.05)
    mended = train.with_temperature(said, found)
    np.testing.assert_allclose(mended, special.softmax(np.log(said) / found, 1), rtol=1e-6)
    assert float(train.calibration_error(mended, LABELS)) < float(
        train.calibration_error(said, LABELS)
    )


def test_certainty_and_lanes():
    sure = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    # All right, and the surer the better; all wrong, and the less sure the better.
    stacked = jax.vmap(train.fit_temperature)(jnp.stack([sure, sure]), jnp.array([[0, 1], [1, 0]]))
    np.testing.assert_allclose(stacked, [1e-3, 1e3], rtol=1e-3)
    assert np.isfinite(train.with_temperature(sure, 3.0)).all()


def test_picture():
    figure = reliability_figure(train.reliability(probabilities(0.4), LABELS), "Digits")
    upper, lower = figure.axes
    error = float(train.calibration_error(probabilities(0.4), LABELS))
    assert f"calibration error {error:.4f}" in [text.get_text() for text in upper.texts]
    assert upper.get_title(loc="left") == "Digits"
    assert sum(bar.get_height() for bar in lower.patches) == pytest.approx(1)


def test_errors():
    with pytest.raises(ValueError, match="`bins` must be an integer of at least 1, got bins=0"):
        train.reliability(probabilities(), LABELS, 0)
    with pytest.raises(ValueError, match=r"`temperature` must be in \(0, inf\), got temperature=0"):
        train.with_temperature(probabilities(), 0)
