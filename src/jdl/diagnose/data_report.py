"""Checks of the data alone: scale, NaN, constant features, balance, leakage, what labels tell."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jdl.data.dataset import Dataset
from jdl.diagnose.finding import Finding, Problem, graded

SAMPLE = 1000  # examples that the nearest neighbour is looked for among, and for


class Data(NamedTuple):
    """A split as rows of numbers."""

    x: np.ndarray
    y: np.ndarray


def data_report(dataset: Dataset | tuple[Any, ...], *, sample: int = 20000) -> Finding:
    """What can be said of a data set before any model: host arithmetic on NumPy arrays.

    Args:
      dataset: `(train, valid, test)` with each `(x, y)` or None.
      sample: rows of the training split from which scales are computed.

    Kinds: "not_finite" (wrong): NaN or infinity, counted.
    "leakage": held-out examples that are in the training split as well, to the
    bit, more than 1 % (suspicious) or 10 % (wrong), and twice as many as of the
    training examples have a twin among themselves. (CIFAR-100's 10 % of near
    duplicates shift published results: Barz and Denzler 2020, Do we train on test data?)
    "label_in_features" (wrong): one feature alone tells every label.
    "labels_unrelated" (suspicious): neither the nearest training example nor the
    nearest class mean tells the labels of others better than chance by three
    standard errors; are they shuffled? (The nearest neighbour errs at most
    twice as often as is possible at all: Cover and Hart 1967.)
    "constant" (suspicious): features that hold one value other than 0, which
    act as a second bias; those that are 0 throughout, as the border of an
    image is, are counted and harmless.
    "scale": the inputs' root mean square is above 10 or below 0.1 (suspicious), above 100 or
    below 0.01 (wrong), where initialisations assume about 1. "uneven": the
    largest deviation of a feature is 1e3 times the median's (suspicious): the
    Hessian's condition grows with its square (LeCun, Bottou, Orr, Müller 1998, Efficient
    backprop, section 4.3). Standardising mends both, and the report says what it would change.
    "imbalance" (suspicious): the commonest class is more than 10 times the
    rarest, so that always naming it looks good.
    "missing_class" (wrong): a class of a held-out split is not in training;
    was the data sorted when it was split?
    """
    dataset = Dataset(*dataset)
    splits = {n: _rows(split) for n, split in dataset._asdict().items() if split is not None}
    train = splits["train"]
    figures: dict[str, Any] = {"examples": {name: len(s.x) for name, s in splits.items()}}
    problems: list[Problem] = []
    labelled = train.y.ndim == 1 and np.issubdtype(train.y.dtype, np.integer)
    bad = {n: int((~np.isfinite(s.x)).sum() + (~np.isfinite(s.y)).sum()) for n, s in splits.items()}
    figures["not_finite"] = bad
    if any(bad.values()):
        where = ", ".join(f"{count} in {name}" for name, count in bad.items() if count)
        advice = f"Values that are NaN or infinite: {where}. Drop or impute them before training."
        problems.append(Problem("not_finite", "wrong", advice))
    scales = _scales(train.x, sample)
    figures |= scales
    # Signed integers are numbers of words, which are looked up and have no scale.
    if not np.issubdtype(train.x.dtype, np.signedinteger):
        problems += _judge_scales(scales)
    if len(splits) > 1:
        shares = leakage(splits)
        figures["leakage"] = shares
        own = shares.pop("train itself")
        figures["twins_in_train"] = own
        for name, share in shares.items():
            verdict = graded(share, 0.01, 0.1)
            if verdict and share > 2 * own:
                advice = (
                    f"{share:.1%} of the {name} examples are also in the training split, to the "
                    f"bit (and {own:.1%} of the training examples among themselves): {name} "
                    "measures memory. Split again, without duplicates."
                )
                problems.append(Problem("leakage", verdict, advice))
    if labelled:
        problems += _judge_labels(splits, figures)
    said = f"{len(train.x):,} training examples of {train.x.shape[1]:,} features"
    note = (
        f"{said}, root mean square {scales['rms']:.2g}; standardising would divide features by "
        f"{scales['least_std']:.2g} to {scales['largest_std']:.2g} and take away means of up to "
        f"{scales['largest_mean']:.2g}; {scales['zero_features']} are always 0."
    )
    return Finding("data_report", figures, note, tuple(problems))


def _rows(split: Any) -> Data:
    x, y = np.asarray(split[0]), np.asarray(split[1])
    return Data(x.reshape(len(x), -1), y)


def _scales(x: np.ndarray, sample: int) -> dict[str, Any]:
    some = np.asarray(x[:: max(1, len(x) // sample)], np.float32)
    some = np.where(np.isfinite(some), some, 0)
    mean, std = some.mean(0, dtype=np.float64), some.std(0, dtype=np.float64)
    constant = np.ptp(some, axis=0) == 0
    varied = std[~constant]
    return {
        "rms": float(np.sqrt(np.mean(np.square(some, dtype=np.float64)))),
        "least_std": float(varied.min(initial=np.inf)) if varied.size else 0.0,
        "median_std": float(np.median(varied)) if varied.size else 0.0,
        "largest_std": float(varied.max(initial=0.0)),
        "largest_mean": float(np.abs(mean).max(initial=0.0)),
        "zero_features": int((constant & (mean == 0)).sum()),
        "constant_features": np.flatnonzero(constant & (mean != 0)).tolist(),
        "constant_values": mean[constant & (mean != 0)].tolist(),
    }


def _judge_scales(s: dict[str, Any]) -> list[Problem]:
    problems = []
    if at := s["constant_features"]:
        values = ", ".join(f"{v:.3g}" for v in s["constant_values"][:3])
        advice = (
            f"{len(at)} features never change (the first is number {at[0]}; values {values}): "
            "they act as a second bias. Drop them, or standardise, which makes them 0."
        )
        problems.append(Problem("constant", "suspicious", advice))
    rms = s["rms"]
    mend = (
        f"Standardising would divide features by {s['least_std']:.2g} to {s['largest_std']:.2g} "
        f"and take away means of up to {s['largest_mean']:.2g}."
    )
    if verdict := graded(max(rms, 1 / max(rms, 1e-30)), 10, 100):
        advice = f"The inputs' root mean square is {rms:.3g} where weights are drawn for 1. {mend}"
        problems.append(Problem("scale", verdict, advice))
    if s["largest_std"] > 1e3 * s["median_std"] > 0:
        advice = (
            f"A feature varies by {s['largest_std']:.2g} where the median feature varies by "
            f"{s['median_std']:.2g}, so that it alone sets the rate. {mend}"
        )
        problems.append(Problem("uneven", "suspicious", advice))
    return problems


def leakage(splits: dict[str, Data]) -> dict[str, float]:
    """For each held-out split the share of its examples that are in the training split.

    Examples are compared bit by bit, all of them, by a hash. "train itself" is
    the share of training examples that have an earlier twin there.
    """
    train = [hash(row.tobytes()) for row in np.ascontiguousarray(splits["train"].x)]
    known = set(train)
    shares = {"train itself": 1 - len(known) / len(train)}
    for name, split in splits.items():
        if name != "train":
            rows = np.ascontiguousarray(split.x)
            shares[name] = sum(hash(row.tobytes()) in known for row in rows) / len(rows)
    return shares


def _judge_labels(splits: dict[str, Data], figures: dict[str, Any]) -> list[Problem]:
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
        best = max(told["nearest_neighbour"], told["nearest_mean"])
        if best < told["chance"] + 3 * told["standard_error"]:
            advice = (
                f"The nearest neighbour tells {told['nearest_neighbour']:.1%} of labels and the "
                f"nearest class mean {told['nearest_mean']:.1%}, where always naming the "
                f"commonest tells {told['chance']:.1%}: labels seem to have nothing to do with "
                "the inputs. Are they shuffled, or shifted by a row?"
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
    """How often the nearest neighbour and the nearest class mean tell labels right."""
    train = splits["train"]
    held = splits.get("valid", splits.get("test"))
    random = np.random.default_rng(0)
    order = random.permutation(len(train.y))
    if held is None:
        half = len(order) // 2
        held, train = (
            Data(train.x[order[:half]], train.y[order[:half]]),
            Data(train.x[order[half:]], train.y[order[half:]]),
        )
        order = random.permutation(len(train.y))
    ours = order[: 4 * SAMPLE]
    theirs = random.permutation(len(held.y))[:SAMPLE]
    if len(theirs) < 50 or len(ours) < 50:
        return None
    x, y = np.asarray(train.x[ours], np.float32), train.y[ours]
    z, t = np.asarray(held.x[theirs], np.float32), held.y[theirs]
    x, z = np.nan_to_num(x), np.nan_to_num(z)
    mean, std = x.mean(0), x.std(0) + 1e-12
    x, z = (x - mean) / std, np.clip((z - mean) / std, -1e3, 1e3)
    distance = (x * x).sum(1)[None, :] - 2 * z @ x.T
    nearest = float((y[np.argmin(distance, 1)] == t).mean())
    labels = np.unique(y)
    means = np.stack([x[y == k].mean(0) for k in labels])
    distance = (means * means).sum(1)[None, :] - 2 * z @ means.T
    by_mean = float((labels[np.argmin(distance, 1)] == t).mean())
    chance = float(np.bincount(t).max() / len(t))
    return {
        "nearest_neighbour": nearest,
        "nearest_mean": by_mean,
        "chance": chance,
        "standard_error": float(np.sqrt(chance * (1 - chance) / len(t))),
    }
