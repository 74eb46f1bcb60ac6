"""What is said of data: splits of other scales, copies, labels that inputs do not tell."""

import numpy as np
import pytest
from tests.diagnose import arrays
from tests.diagnose.arrays import digits

from jdl import data, diagnose


def normal(length, features, seed=3):
    return np.random.default_rng(seed).normal(size=(length, features)).astype(np.float32)


def halves(x, y=None):
    y = (x[:, 0] > 0).astype(np.int32) if y is None else y
    half = len(x) // 2
    return data.Dataset((x[:half], y[:half]), (x[half:], y[half:]), None)


@pytest.mark.parametrize(
    ("noise", "copies", "verdict"),
    [
        (0.0, 30, "wrong"),
        (1e-3, 30, "wrong"),
        (1e-2, 30, "wrong"),
        (1e-2, 10, "suspicious"),
        (1e-2, 3, "fine"),
        (0.5, 30, "fine"),
    ],
)
def test_copies_are_counted_to_the_example(noise, copies, verdict):
    x = normal(400, 10)
    x[200 : 200 + copies] = x[:copies] + noise * normal(copies, 10, seed=4)
    found = diagnose.data_report(halves(x))
    assert found.verdict == verdict and found.kinds in ((), ("leakage",))
    if noise < 0.1:
        assert found.figures["near_copies"] == {"train itself": 0, "valid": copies / 200}


@pytest.mark.parametrize("features", [1, 2, 3])
def test_neighbours_in_few_dimensions_are_no_copies(features):
    for seed in range(5):
        found = diagnose.data_report(halves(normal(3000, features, seed=seed)))
        assert found.problems == (), found.advice


def test_frames_of_one_film_in_all_splits_are_not_called_copies():
    """As near within training as between the splits: it is how the data is."""
    x = np.repeat(normal(100, 10), 8, axis=0)
    x += 1e-3 * normal(800, 10, seed=5)
    x = x[np.random.default_rng(6).permutation(800)]
    assert diagnose.data_report(halves(x)).problems == ()


@pytest.mark.parametrize(
    ("factor", "shift", "verdict"),
    [
        (1.0, 0.0, "fine"),
        (1.8, 0.0, "fine"),
        (2.2, 0.0, "suspicious"),
        (1 / 2.2, 0.0, "suspicious"),
        (11.0, 0.0, "wrong"),
        (1 / 255, 0.0, "wrong"),
        (1.0, 0.9, "fine"),
        (1.0, 1.1, "suspicious"),
        (1.0, 11.0, "wrong"),
    ],
)
def test_a_split_is_scaled_as_training_is(factor, shift, verdict):
    x = normal(2000, 20)
    x[1000:] = factor * x[1000:] + shift
    found = diagnose.data_report(halves(x, x[:, 0]))
    assert found.verdict == verdict and found.kinds in ((), ("scaled_otherwise",)), found.advice


def test_rare_words_and_outliers_are_no_other_scale():
    counts = (np.random.default_rng(0).random((300, 400)) < 0.004).astype(np.float32)
    counts[:, 0] = normal(300, 1)[:, 0]
    assert "scaled_otherwise" not in diagnose.data_report(halves(counts)).kinds
    x = normal(400, 20)
    x[300, 7] = 1e3
    assert diagnose.data_report(halves(x)).problems == ()


def test_a_constant_is_said_if_it_is_far_from_0():
    x = normal(400, 20)
    x[:, 4:9] = -0.7  # a border, or a bias
    assert diagnose.data_report(halves(x)).problems == ()
    x[:, 5] = 3.2
    found = diagnose.data_report(halves(x))
    assert found.kinds == ("constant",) and "1 features" in found.advice
    assert "number 5" in found.advice and found.figures["constant_features"] == [4, 5, 6, 7, 8]


def test_a_common_class_does_not_hide_what_inputs_tell():
    found = diagnose.data_report(arrays.apart(0.96))
    assert found.kinds == ("imbalance",)
    d = arrays.apart(0.96)
    labels = np.random.default_rng(8).permutation(d.train[1])
    found = diagnose.data_report(d._replace(train=(d.train[0], labels)))
    assert set(found.kinds) == {"imbalance", "labels_unrelated"}


@pytest.mark.slow
@pytest.mark.parametrize(("split", "shuffles"), [("train", 40), ("valid", 10), ("both", 10)])
def test_shuffled_labels_are_seen_whatever_the_shuffle(split, shuffles):
    d = digits()
    for seed in range(shuffles):
        random = np.random.default_rng(1000 + seed)
        mixed = {
            name: (s[0], random.permutation(s[1]) if split in (name, "both") else s[1])
            for name, s in d._asdict().items()
        }
        assert "labels_unrelated" in diagnose.data_report(data.Dataset(**mixed)).kinds, seed


@pytest.mark.slow
def test_labels_that_inputs_tell_a_little_are_related():
    for seed in range(20):
        random = np.random.default_rng(seed)
        x = normal(3000, 5, seed=50 + seed)
        y = (x[:, 0] + random.normal(size=3000) > 0).astype(np.int32)
        assert diagnose.data_report(halves(x, y)).problems == ()
