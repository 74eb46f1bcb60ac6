"""Checks of the held-out splits against training: shared examples, near copies, another scale."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jdl.diagnose.finding import Problem, graded

NEAR = 0.1  # of the usual distance to the nearest training example
WORK = 1e10  # multiplications for distances between examples, about half a second
CHUNK = 4096  # training examples that are scaled at once
MOST = 1e7  # numbers from which scales are computed


class Data(NamedTuple):
    """A split as rows of numbers."""

    x: np.ndarray
    y: np.ndarray


def judge_splits(splits: dict[str, Data], figures: dict[str, Any]) -> list[Problem]:
    """What is wrong with held-out splits, given training; adds what it measured to `figures`."""
    problems = []
    shares = leakage(splits)
    figures["leakage"] = shares
    own = shares.pop("train itself")
    figures["twins_in_train"] = own
    near = near_copies(splits)
    figures["near_copies"] = near
    for name, share in shares.items():
        verdict = graded(share, 0.01, 0.1)
        if verdict and share > 2 * own:
            advice = (
                f"{share:.1%} of the {name} examples are also in the training split, to the "
                f"bit (and {own:.1%} of the training examples among themselves): {name} "
                "measures memory. Split again, without duplicates."
            )
            problems.append(Problem("leakage", verdict, advice))
        elif near and (verdict := _many(near[name], near["train itself"])):
            advice = (
                f"{near[name]:.1%} of the {name} examples lie within {NEAR:.0%} of the usual "
                f"distance of a training example (and {near['train itself']:.1%} of the training "
                f"examples of one another): they seem to be copies with noise, so that {name} "
                "measures memory. Split before augmenting, by origin."
            )
            problems.append(Problem("leakage", verdict, advice))
    for name, (ratio, shift) in scales_apart(splits).items():
        figures[f"{name}_scale"] = {"ratio": ratio, "shift": shift}
        if verdict := graded(max(ratio, 1 / max(ratio, 1e-30)), 2.0, 10.0):
            advice = (
                f"The features of {name} vary {ratio:.3g} times as much as those of training (in "
                "the median): scale all splits by the figures of the training split."
            )
            problems.append(Problem("scaled_otherwise", verdict, advice))
        elif verdict := graded(shift, 1.0, 10.0):
            advice = (
                f"The means of {name} differ from those of training by {shift:.3g} standard "
                "deviations (in the median of the features): shift all splits by the means of "
                "the training split."
            )
            problems.append(Problem("scaled_otherwise", verdict, advice))
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


def near_copies(splits: dict[str, Data]) -> dict[str, float]:
    """For each split the share of examples much nearer to a training example than is usual.

    Usual is the median distance of a training example to its nearest other one.
    Features are divided by their deviation, but for those that hardly vary:
    noise would count most there. Some hundreds of each split are compared with
    all of training. "train itself" is the share among training examples, which
    low dimensions and frames of one film make large.

    Returns:
      The shares by name; nothing where training has fewer than 50 examples, or
      too many numbers to go through for each of a hundred examples.
    """
    train = splits["train"].x
    count = int(min(WORK / (len(splits) * max(train.size, 1)), 1000))
    if np.issubdtype(train.dtype, np.signedinteger) or len(train) < 50 or count < 10:
        return {}
    count = max(count, 100)
    mean, std = _moments(train)
    varied = std > 0
    if not varied.any():
        return {}
    unit = np.maximum(std, 0.3 * np.median(std[varied]))[varied]

    def scaled(a: np.ndarray) -> np.ndarray:
        rows = np.nan_to_num(np.asarray(a, np.float32)) - mean
        return np.asarray(rows[:, varied] / unit, np.float32)

    random = np.random.default_rng(0)
    own = random.permutation(len(train))[:count]
    some = {name: scaled(s.x[random.permutation(len(s.x))[:count]]) for name, s in splits.items()}
    some["train"] = scaled(train[own])
    apart = {name: np.full(len(rows), np.inf) for name, rows in some.items()}
    for start in range(0, len(train), CHUNK):
        part = scaled(train[start : start + CHUNK])
        for name, rows in some.items():
            square = (part * part).sum(1)[None] - 2 * rows @ part.T
            if name == "train":
                here = (own >= start) & (own < start + len(part))
                square[here, own[here] - start] = np.inf
            nearest = part[square.argmin(1)]
            # Differences of large squares round; the nearest one is measured again.
            distance = np.sqrt(np.square(rows - nearest).sum(1))
            alone = ~np.isfinite(square.min(1))
            apart[name] = np.minimum(apart[name], np.where(alone, np.inf, distance))
    usual = float(np.median(apart["train"]))
    return {
        "train itself" if name == "train" else name: float((distance < NEAR * usual).mean())
        for name, distance in apart.items()
    }


def _many(share: float, own: float) -> str | None:
    """The verdict on a share of near copies; twice what is usual within training is none."""
    return graded(share, 0.02, 0.1) if share > 2 * own + 0.01 else None


def scales_apart(splits: dict[str, Data]) -> dict[str, tuple[float, float]]:
    """For each held-out split how much more its features vary, and how far its means are off.

    Over the features that vary in training: the ratio of standard deviations,
    as the median over features or of all together, whichever is nearer to 1 (a
    rare word does not occur in most splits, and one outlier outweighs all
    else); and the median distance of means, in deviations of training.
    """
    train = splits["train"].x
    if np.issubdtype(train.dtype, np.signedinteger):
        return {}
    mean, std = _moments(train)
    varied = std > 0
    apart = {}
    for name, split in splits.items():
        if name == "train" or len(split.x) < 50 or not varied.any():
            continue
        other_mean, other_std = _moments(split.x)
        ours, theirs = std[varied], other_std[varied]
        unit = np.maximum(ours, 0.3 * np.median(ours))
        ratios = (
            float(np.median(theirs / ours)),
            float(np.linalg.norm(theirs / unit) / np.linalg.norm(ours / unit)),
        )
        ratio = min(ratios, key=lambda r: max(r, 1 / max(r, 1e-30)))
        shift = float(np.median(np.abs(other_mean - mean)[varied] / ours))
        apart[name] = ratio, shift
    return apart


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = min(len(x), max(100, int(MOST / max(1, x.shape[1]))))
    some = np.asarray(x[:: max(1, len(x) // rows)], np.float64)
    some = np.where(np.isfinite(some), some, 0)
    return some.mean(0), some.std(0)
