"""A small random forest, and how much of its variance each column explains alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Tree(NamedTuple):
    """A regression tree as arrays, one entry a node; the root is node 0.

    Attributes:
      feature: the column that the node splits, -1 at a leaf.
      threshold: rows at or below it go left.
      left: the node on the left; the one on the right comes after it.
      value: the mean of the training rows that came here.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    value: np.ndarray

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(rows,) the values of rows (rows, columns)."""
        node = np.zeros(len(x), int)
        rows = np.arange(len(x))
        while True:
            feature = self.feature[node]
            inner = feature >= 0
            if not inner.any():
                return self.value[node]
            right = x[rows, np.maximum(feature, 0)] > self.threshold[node]
            node = np.where(inner, self.left[node] + right, node)


def grow_tree(
    x: np.ndarray, y: np.ndarray, random: np.random.Generator, depth: int = 6, leaf: int = 3
) -> Tree:
    """A tree of least squares; each node looks at a random two thirds of the columns.

    Args:
      x: (rows, columns).
      y: (rows,) targets.
      random: chooses columns.
      depth: at most so many splits from root to leaf.
      leaf: at least so many rows in a leaf.
    """
    columns = x.shape[1]
    tried = max(1, round(2 * columns / 3))
    nodes: list[list[float]] = [[-1, 0.0, 0, float(y.mean())]]
    waiting = [(0, np.arange(len(y)), 0)]
    while waiting:
        node, rows, level = waiting.pop()
        if level == depth or rows.size < 2 * leaf:
            continue
        split = _best_split(x[rows], y[rows], random.permutation(columns)[:tried], leaf)
        if split is None:
            continue
        feature, threshold = split
        goes_right = x[rows, feature] > threshold
        nodes[node][:3] = [feature, threshold, len(nodes)]
        for side in (rows[~goes_right], rows[goes_right]):
            waiting.append((len(nodes), side, level + 1))
            nodes.append([-1, 0.0, 0, float(y[side].mean())])
    table = np.array(nodes)
    return Tree(table[:, 0].astype(int), table[:, 1], table[:, 2].astype(int), table[:, 3])


def _best_split(
    x: np.ndarray, y: np.ndarray, features: np.ndarray, leaf: int
) -> tuple[int, float] | None:
    """The column and threshold that leave the least squared error, or None if no split helps."""
    order = np.argsort(x[:, features], axis=0, kind="stable")
    ordered = np.take_along_axis(x[:, features], order, axis=0)
    sums = np.cumsum(y[order], axis=0)[:-1]
    left = np.arange(1, len(y))[:, None]
    right = len(y) - left
    # Less squared error is more of this; the rest of it does not depend on the split.
    gain = sums**2 / left + (y.sum() - sums) ** 2 / right
    allowed = (ordered[1:] > ordered[:-1]) & (left >= leaf) & (right >= leaf)
    gain = np.where(allowed, gain, -np.inf)
    at, which = np.unravel_index(np.argmax(gain), gain.shape)
    if gain[at, which] <= y.sum() ** 2 / len(y) + 1e-12 * (y @ y):
        return None
    threshold = 0.5 * (ordered[at, which] + ordered[at + 1, which])
    return int(features[which]), float(threshold)


def grow_forest(x: np.ndarray, y: np.ndarray, trees: int = 32, seed: int = 0) -> list[Tree]:
    """`trees` trees, each of a bootstrap sample of at most 500 rows."""
    random = np.random.default_rng(seed)
    forest = []
    for _ in range(trees):
        rows = random.integers(len(y), size=min(len(y), 500))
        forest.append(grow_tree(x[rows], y[rows], random))
    return forest


def main_effects(forest: list[Tree], x: np.ndarray, seed: int = 0) -> np.ndarray:
    """(trees, columns) the share of each tree's variance that a column explains alone.

    The first-order terms of functional ANOVA: the variance over one column of
    the prediction's mean over all others, over the variance of the prediction,
    where columns are independent and distributed as in `x`.

    Source: Hutter, Hoos and Leyton-Brown (2014), An Efficient Approach for
    Assessing Hyperparameter Importance; the means are taken here over 128 random
    rows and at most 24 values of a column.
    """
    random = np.random.default_rng(seed)
    columns = x.shape[1]
    grids = [
        np.quantile(x[:, c], np.linspace(0.02, 0.98, 24), method="nearest") for c in range(columns)
    ]
    background = np.column_stack([random.choice(x[:, c], 128) for c in range(columns)])
    effects = np.zeros((len(forest), columns))
    for c, grid in enumerate(grids):
        block = np.repeat(background[None], len(grid), axis=0)
        block[:, :, c] = grid[:, None]
        flat = block.reshape(-1, columns)
        for t, tree in enumerate(forest):
            means = tree.predict(flat).reshape(len(grid), -1).mean(axis=1)
            effects[t, c] = means.var()
    # The background's own sampling must not count as an effect: its columns were drawn apart.
    wide = np.column_stack([random.choice(x[:, c], 1024) for c in range(columns)])
    total = np.array([tree.predict(wide).var() for tree in forest])
    return effects / np.where(total > 0, total, np.inf)[:, None]


def ranks(values: Any) -> np.ndarray:
    """The rank of each value from 0 to 1, NaN the lowest; equal values share theirs.

    >>> ranks([3.0, float("nan"), 5.0]).tolist()
    [0.5, 0.0, 1.0]
    """
    filled = np.where(np.isnan(values), -np.inf, values)
    _, place, count = np.unique(filled, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count + 1) / 2
    return middle[place] / max(1, len(filled) - 1)
