"""Small made-up sets, each of which shows one thing about training."""

from __future__ import annotations

import math

import numpy as np

from jdl.data.dataset import Dataset, from_arrays


def sparse_feature(
    length: int = 500, *, sparsity: float = 0.8, noise: float = 0.0, seed: int = 0
) -> Dataset:
    """Two features for a sigmoid neuron, the second of which is 0 for most rows.

    `y = sigmoid(w1 x1 + w2 x2)` with `w = (2, -3)`: the rare feature matters
    more, and its weight gets a gradient in one row of five only. Gradient
    descent moves along the dense axis first; Adagrad does not.

    Args:
      length: the number of rows.
      sparsity: the share of rows in which the second feature is 0, in [0, 1].
      noise: the standard deviation of what is added to `y`.
      seed: of NumPy's PCG64 generator.

    Returns:
      All rows in the training split; x float32 (length, 2), y float32 (length, 1).
    """
    random = np.random.default_rng(seed)
    x = random.normal(size=(length, 2))
    zero = random.permutation(length) < round(_share("sparsity", sparsity) * length)
    x[zero, 1] = 0
    y = 1 / (1 + np.exp(-(x @ np.array([[2.0], [-3.0]]))))
    y += noise * random.normal(size=y.shape)
    return from_arrays(x, y, valid=0, test=0)


def spirals(
    length: int = 1500,
    *,
    classes: int = 3,
    turns: float = 0.75,
    noise: float = 0.1,
    seed: int = 0,
    valid: float | int = 0.1,
    test: float | int = 0.2,
) -> Dataset:
    """Interleaved spiral arms in the plane, which no linear classifier tells apart.

    Args:
      length: the number of points over all arms.
      classes: the number of arms.
      turns: how often an arm winds around the origin.
      noise: the standard deviation of the angle, in radians.
      seed: of the points and of the split.
      valid: as in `from_arrays`.
      test: as in `from_arrays`.

    Returns:
      x float32 (n, 2) within about the unit disc, y int32.
    """
    random = np.random.default_rng(seed)
    y = np.arange(length) % classes
    radius = np.sqrt(random.uniform(0.01, 1, length))
    angle = 2 * math.pi * (turns * radius + y / classes) + noise * random.normal(size=length)
    x = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return from_arrays(x, y, valid=valid, test=test, seed=seed)


def blobs(
    length: int = 1000,
    *,
    features: int = 2,
    classes: int = 3,
    spread: float = 1.0,
    seed: int = 0,
    valid: float | int = 0.1,
    test: float | int = 0.2,
) -> Dataset:
    """One Gaussian cloud for each class, centres drawn at a standard deviation of 3.

    Args:
      length: the number of points over all classes.
      features: the dimension.
      classes: the number of clouds.
      spread: the standard deviation of a cloud.
      seed: of the points and of the split.
      valid: as in `from_arrays`.
      test: as in `from_arrays`.

    Returns:
      x float32 (n, features), y int32.
    """
    random = np.random.default_rng(seed)
    y = np.arange(length) % classes
    centres = 3 * random.normal(size=(classes, features))
    x = centres[y] + spread * random.normal(size=(length, features))
    return from_arrays(x, y, valid=valid, test=test, seed=seed)


def linear(
    length: int = 1000,
    *,
    features: int = 10,
    outputs: int = 1,
    condition: float = 1.0,
    noise: float = 0.1,
    seed: int = 0,
    valid: float | int = 0.1,
    test: float | int = 0.2,
) -> Dataset:
    """A linear regression `y = x w + b + noise` whose Hessian has a chosen condition number.

    Args:
      length: the number of rows.
      features: the dimension of `x`.
      outputs: the dimension of `y`.
      condition: the ratio of the largest to the smallest variance of a feature,
        spaced evenly in the logarithm; 1 for all alike.
      noise: the standard deviation of the noise.
      seed: of the rows and of the split.
      valid: as in `from_arrays`.
      test: as in `from_arrays`.

    Returns:
      x float32 (n, features), y float32 (n, outputs).
    """
    random = np.random.default_rng(seed)
    deviation = np.geomspace(1, math.sqrt(condition), features)
    x = deviation * random.normal(size=(length, features))
    w, b = random.normal(size=(features, outputs)), random.normal(size=outputs)
    y = x @ w + b + noise * random.normal(size=(length, outputs))
    return from_arrays(x, y, valid=valid, test=test, seed=seed)


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"`{name}` must be in [0, 1], got {name}={value}.")
    return value
