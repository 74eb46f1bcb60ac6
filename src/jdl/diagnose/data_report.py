"""The check of the data alone: its scale, NaN and constant features, its splits and labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from jdl.data.dataset import Dataset
from jdl.diagnose.data_labels import judge_labels
from jdl.diagnose.data_splits import Data, judge_splits
from jdl.diagnose.finding import Finding, Problem, graded


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
    Likewise where more than 2 % or 10 % are nearer than a tenth of the usual distance.
    "scaled_otherwise": a held-out split varies 2 (suspicious) or 10 times (wrong) as much
    as training, or as little, or its means are 1 or 10 standard deviations off.
    "label_in_features" (wrong): one feature alone tells every label.
    "labels_unrelated" (suspicious): neither the nearest training example nor the
    nearest class mean tells the classes of others better than it does where the
    training labels are shuffled, by four standard deviations of many shuffles. (The nearest
    neighbour errs at most twice as often as is possible at all: Cover and Hart 1967.)
    "constant" (suspicious): features that never change, of more than three times
    the root mean square of the others. They act as a second bias with a
    rate of its own; the border of an image, 0 or a little below it, is harmless.
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
        problems += judge_splits(splits, figures)
    if labelled:
        problems += judge_labels(splits, figures)
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
        "rms_of_varied": float(np.sqrt(np.mean(np.square(some[:, ~constant], dtype=np.float64))))
        if varied.size
        else 0.0,
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
    values = [v for v in s["constant_values"] if abs(v) > 3 * s["rms_of_varied"]]
    if values:
        first = s["constant_features"][s["constant_values"].index(values[0])]
        said = ", ".join(f"{v:.3g}" for v in values[:3])
        advice = (
            f"{len(values)} features never change and are far from 0 (the first is number {first}; "
            f"values {said}) where the others have a root mean square of "
            f"{s['rms_of_varied']:.2g}: they act as a second bias with a rate of its own. Drop "
            "them, or standardise, which makes them 0."
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
