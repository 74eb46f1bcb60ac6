"""Checks of labels: balance, a feature that gives them away, and whether inputs tell them."""

from __future__ import annotations

from typing import Any

import numpy as np

from jdl.diagnose.data_splits import Data
from jdl.diagnose.finding import Problem

SAMPLE = 1000  # examples whose labels are guessed from others
SHUFFLES = (20, 100)  # at least and at most
WORK = 1e10  # multiplications for the means of shuffled classes, about half a second


def judge_labels(splits: dict[str, Data], figures: dict[str, Any]) -> list[Problem]:
    """What is wrong with integer labels; adds what it measured to `figures`."""
    problems = []
    train = splits["train"]
    counts = np.bincount(train.y)
    present = counts[counts > 0]
    figures["class_counts"] = counts
    for name, split in splits.items():
        if name == "train":
            continue
        strangers = sorted(set(np.unique(split.y).tolist()) - set(np.flatnonzero(counts).tolist()))
        if strangers:
            share = float(np.isin(split.y, strangers).mean())
            advice = (
                f"{share:.1%} of the {name} labels are of classes that training never shows "
                f"({', '.join(map(str, strangers[:5]))}): shuffle before splitting, or stratify."
            )
            problems.append(Problem("missing_class", "wrong", advice))
    if len(present) > 1 and present.max() > 10 * present.min():
        advice = (
            f"The commonest class has {present.max()} training examples and the rarest "
            f"{present.min()}; always naming the first is right {present.max() / len(train.y):.1%} "
            "of the time. Weigh the classes, resample, and look at each class's accuracy."
        )
        problems.append(Problem("imbalance", "suspicious", advice))
    feature = _telling_feature(train)
    figures["telling_feature"] = feature
    if feature is not None:
        advice = (
            f"Feature {feature} alone tells every label: is it made of them? Drop it, unless it "
            "is known before the label."
        )
        problems.append(Problem("label_in_features", "wrong", advice))
    told = _told(splits)
    if told is not None:
        figures |= told
        if told["deviations"] < 4:  # the best of 120 shuffles had 3.8
            advice = (
                f"The nearest neighbour tells {told['nearest_neighbour']:.1%} of each class and "
                f"the nearest class mean {told['nearest_mean']:.1%}, which is no more than where "
                f"the training labels are shuffled ({told['shuffled']:.1%}): labels seem to have "
                "nothing to do with the inputs. Are they shuffled, or shifted by a row?"
            )
            problems.append(Problem("labels_unrelated", "suspicious", advice))
    return problems


def _telling_feature(train: Data) -> int | None:
    """A feature whose values have no overlap between any two classes, if there is one."""
    labels = np.unique(train.y)
    if len(labels) < 2 or len(train.y) < 5 * len(labels):
        return None
    x = np.asarray(train.x[:SAMPLE], np.float32)
    y = train.y[:SAMPLE]
    low = np.stack([x[y == k].min(0, initial=np.inf) for k in labels])
    high = np.stack([x[y == k].max(0, initial=-np.inf) for k in labels])
    order = np.argsort(low, axis=0)
    low, high = np.take_along_axis(low, order, 0), np.take_along_axis(high, order, 0)
    # A real measurement may part two classes; of one value in each class none does by chance.
    apart = (low[1:] > high[:-1]).all(0) & (low == high).all(0)
    return int(np.argmax(apart)) if apart.any() else None


def _told(splits: dict[str, Data]) -> dict[str, float] | None:
    """How well the nearest neighbour and the nearest class mean tell held-out labels.

    Both are shares of a class told right, averaged over the classes, so that a
    common class counts no more than a rare one. What they are by chance is
    measured with shuffled training labels: held-out examples share
    their neighbours and all of the means, so their errors are not independent.

    Returns:
      "nearest_neighbour", "nearest_mean", the mean "shuffled" of both, and the
      "deviations" of the better one above it; None for too few examples.
    """
    random = np.random.default_rng(0)
    train = splits["train"]
    held = splits.get("valid", splits.get("test"))
    order = random.permutation(len(train.y))
    if held is None:
        half = len(order) // 2
        held = Data(train.x[order[:half]], train.y[order[:half]])
        order = order[half:]
    classes = len(np.unique(train.y))
    most = WORK / (SHUFFLES[1] * classes * train.x.shape[1])
    ours = order[: int(np.clip(most, SAMPLE, 4 * SAMPLE))]
    shuffles = int(np.clip(SHUFFLES[1] * most / len(ours), *SHUFFLES))
    theirs = random.permutation(len(held.y))[:SAMPLE]
    if len(theirs) < 50 or len(ours) < 50:
        return None
    x, y = _numbers(train.x[ours]), train.y[ours]
    z, t = _numbers(held.x[theirs]), held.y[theirs]
    mean, std = x.mean(0), x.std(0) + 1e-12
    x, z = (x - mean) / std, np.clip((z - mean) / std, -1e3, 1e3)
    nearest = ((x * x).sum(1)[None, :] - 2 * z @ x.T).argmin(1)
    labels, counts = np.unique(t, return_counts=True)
    weight = 1 / (len(labels) * counts[np.searchsorted(labels, t)])

    def scores(y: np.ndarray) -> tuple[float, float]:
        known = np.unique(y)
        member = (known[:, None] == y).astype(np.float32)
        means = member @ x / member.sum(1, keepdims=True)
        by_mean = known[((means * means).sum(1)[None, :] - 2 * z @ means.T).argmin(1)]
        return float(weight @ (y[nearest] == t)), float(weight @ (by_mean == t))

    real = np.array(scores(y))
    null = np.array([scores(random.permutation(y)) for _ in range(shuffles)])
    deviations = (real - null.mean(0)) / np.maximum(null.std(0), 1e-6)
    return {
        "nearest_neighbour": real[0],
        "nearest_mean": real[1],
        "shuffled": float(null.mean()),
        "deviations": float(deviations.max()),
    }


def _numbers(x: np.ndarray) -> np.ndarray:
    """Rows of numbers whose distances mean something; to words their counts are added."""
    numbers = np.nan_to_num(np.asarray(x, np.float32))
    if not np.issubdtype(x.dtype, np.signedinteger):
        return numbers
    counts = np.zeros((len(x), 512), np.float32)
    np.add.at(counts, (np.arange(len(x))[:, None], x % 512), 1)
    return np.concatenate([numbers, counts], 1)
