"""How examples are dealt out: random parts of given sizes, with each class in proportion."""

from __future__ import annotations

from typing import Any

import numpy as np

from jdl.data.error import DataError


def split_indices(
    length: int,
    sizes: tuple[int, ...],
    seed: int = 0,
    labels: Any = None,
    first: int | None = None,
) -> list[np.ndarray]:
    """Disjoint random index arrays of the given sizes, in proportion to each class.

    Args:
      length: the number of examples.
      sizes: how many each part takes; their sum is at most `length`.
      seed: of NumPy's PCG64 generator.
      labels: integer labels; every part then holds each class in proportion,
        to within one example. None draws without regard to class.
      first: the part that has an example of every class, whatever that costs
        the proportions; None for no such part.

    Returns:
      One shuffled int64 array for each size.

    Raises:
      DataError: the sizes do not fit, or part `first` is too small.
    """
    if min(sizes, default=0) < 0 or sum(sizes) > length:
        raise DataError(f"cannot take parts of {sizes} out of {length} examples.")
    random = np.random.default_rng(seed)
    order = random.permutation(length)
    if labels is not None:
        labels = np.asarray(labels)
        order = order[np.argsort(labels[order], kind="stable")]
    left, parts = order, []
    for size in sizes:
        # Every (len/size)-th example of the order by class: exact counts, even over classes.
        steps = np.arange(1, len(left) + 1) * size // max(1, len(left))
        taken = np.diff(steps, prepend=0) > 0
        parts.append(random.permutation(left[taken]))
        left = left[~taken]
    if labels is None or not length:
        return parts
    # What is left after a part is no longer quite in proportion, nor is a rare class everywhere.
    names, of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    table = np.array([np.bincount(of[part], minlength=len(names)) for part in parts])
    fair = counts * np.array(sizes)[:, None] / length
    if (abs(table - fair) < 1).all() and (first is None or table[first].all()):
        return parts
    if first is not None and sizes[first] < len(names):
        rare = int(np.argmin(counts))
        raise DataError(
            f"class {names[rare]} has {counts[rare]} of {length} examples, and {sizes[first]} "
            f"training examples cannot hold one of each of {len(names)} classes: hold out fewer, "
            "give `stratify=False`, or floats where targets are no labels."
        )
    return _dealt(order, counts, _apportioned(counts, sizes, first), random)


def deal_indices(length: int, folds: int, seed: int, labels: Any) -> list[np.ndarray]:
    """Disjoint random index arrays of all examples; classes differ by at most one between them."""
    random = np.random.default_rng(seed)
    order = random.permutation(length)
    order = order[np.argsort(np.asarray(labels)[order], kind="stable")]
    return [random.permutation(order[fold::folds]) for fold in range(folds)]


def _apportioned(counts: np.ndarray, sizes: tuple[int, ...], first: int | None) -> np.ndarray:
    """How many of each class go to each part: shares rounded up or down, with the sums exact.

    A linear program: its matrix is a network's, so that its vertices are whole.
    """
    from scipy import optimize, sparse

    total = int(counts.sum())
    wanted = np.array([*sizes, total - sum(sizes)])
    exact = counts * wanted[:, None]
    least, spare = exact // total, (exact % total > 0).astype(int)
    least[-1], spare[-1] = 0, counts  # what no part takes may be anything
    below = least.copy()
    if first is not None:
        spare[first][least[first] == 0] = 0
        below[first] = np.maximum(least[first] - 1, 0)
        least[first] = np.maximum(least[first], 1)
    # To each share something may be added for nothing, and more, or less, at a cost.
    shape = least.shape
    rows = np.repeat(np.arange(shape[0]), shape[1])
    columns = np.tile(np.arange(shape[1]), shape[0])
    ones, cells = np.ones(least.size), np.arange(least.size)
    sums = sparse.vstack(
        [sparse.coo_array((ones, (rows, cells))), sparse.coo_array((ones, (columns, cells)))]
    )
    target = np.concatenate([wanted - least.sum(1), counts - least.sum(0)])
    bounds = [
        *((0, n) for n in spare.ravel()),
        *((0, None) for _ in cells),
        *((0, n) for n in below.ravel()),
    ]
    solved = optimize.linprog(
        np.repeat([0.0, 1.0, 1.0], least.size),
        A_eq=sparse.hstack([sums, sums, -sums]).tocsr(),
        b_eq=target,
        bounds=bounds,
        method="highs-ds",
    )
    free, more, less = np.rint(solved.x).astype(int).reshape(3, *shape)
    return (least + free + more - less)[:-1]


def _dealt(
    order: np.ndarray, counts: np.ndarray, table: np.ndarray, random: np.random.Generator
) -> list[np.ndarray]:
    """The parts that take from each class of `order` as many as `table` says."""
    taken: list[list[np.ndarray]] = [[] for _ in table]
    for block, shares in zip(np.split(order, np.cumsum(counts)[:-1]), table.T):
        for part, piece in zip(taken, np.split(block, np.cumsum(shares))):
            part.append(piece)
    return [random.permutation(np.concatenate(part)) for part in taken]
