"""Data sets, sound and broken, that the tables of set-ups are made of."""

from __future__ import annotations

import functools

import numpy as np

from jdl import data


@functools.cache
def digits():
    return data.digits(standardize=True)


@functools.cache
def pictures():
    return data.digits(standardize=True, image=True)


def with_data(change):
    """Digits whose arrays `change(random, x, y)` has been at; None for a split leaves it."""
    whole = digits()
    random = np.random.default_rng(5)
    return change(random, whole)


def shuffled(random, d):
    return d._replace(
        train=(d.train[0], random.permutation(d.train[1])),
        valid=(d.valid[0], random.permutation(d.valid[1])),
    )


def leaking(random, d):
    x, y = d.valid[0].copy(), d.valid[1].copy()
    at = random.permutation(len(d.train[1]))[: len(y) // 4]
    x[: len(at)], y[: len(at)] = d.train[0][at], d.train[1][at]
    return d._replace(valid=(x, y))


def every_x(f):
    return lambda random, d: d._replace(
        **{n: (f(s[0].copy(), s[1]), s[1]) for n, s in d._asdict().items()}
    )


def set_column(x, column, value):
    x[:, column] = value
    return x


def holed(random, d):
    x = d.train[0].copy()
    x[17, 3] = np.nan
    return d._replace(train=(x, d.train[1]))


def in_order(random, d):
    x, y = (np.concatenate([d.train[i], d.valid[i]]) for i in (0, 1))
    order = np.argsort(y, kind="stable")
    x, y = x[order], y[order]
    return d._replace(train=(x[:1000], y[:1000]), valid=(x[1000:], y[1000:]))


def rare(random, d):
    x, y = d.train
    keep = (y != 3) | (np.cumsum(y == 3) <= 5)
    return d._replace(train=(x[keep], y[keep]))


def line():
    """A regression: three numbers from eight."""
    random = np.random.default_rng(2)
    x = random.normal(size=(600, 8)).astype(np.float32)
    y = np.tanh(x @ random.normal(size=(8, 3))) + 0.05 * random.normal(size=(600, 3))
    return data.from_arrays(x, y.astype(np.float32))


def shuffled_in_training(random, d):
    return d._replace(train=(d.train[0], random.permutation(d.train[1])))


def shifted_by_a_row(random, d):
    return d._replace(train=(d.train[0], np.roll(d.train[1], 1)))


def nearly_leaking(random, d):
    d = leaking(random, d)
    x = d.valid[0] + 0.01 * random.normal(size=d.valid[0].shape)
    return d._replace(valid=(x.astype(np.float32), d.valid[1]))


def scaled_otherwise(factor, shift=0.0):
    return lambda random, d: d._replace(valid=(factor * d.valid[0] + shift, d.valid[1]))


def few_and_noisy(random, d):
    """Forty examples in training, a third of their labels wrong."""
    x, y = d.train[0][:40], d.train[1][:40].copy()
    y[:13] = random.integers(0, 10, 13)
    return d._replace(train=(x, y))


def apart(share, length=1500):
    """Two classes that a line parts, `share` of the examples in the first."""
    random = np.random.default_rng(1)
    y = (random.random(length) > share).astype(np.int32)
    x = random.normal(size=(length, 10)).astype(np.float32)
    x[:, 0] += 6 * y
    return data.from_arrays(x, y, standardize=True)


def noisy_classes(length=3000):
    """Two classes of which the inputs tell four labels in five, no better."""
    random = np.random.default_rng(4)
    x = random.normal(size=(length, 5)).astype(np.float32)
    y = (x[:, 0] + 0.7 * random.normal(size=length) > 0).astype(np.int32)
    return data.from_arrays(x, y, standardize=True)


def bordered():
    """Digits with a border, shifted and scaled together, as MNIST comes."""
    d = data.digits(standardize=False, image=True)
    framed = {n: np.pad(s[0], ((0, 0), (2, 2), (2, 2), (0, 0))) for n, s in d._asdict().items()}
    mean, std = framed["train"].mean(), framed["train"].std()
    return d._replace(
        **{n: (((framed[n] - mean) / std).astype(np.float32), s[1]) for n, s in d._asdict().items()}
    )


def sentences(length=1500):
    """Rows of twelve words; in those of the second class a word of the upper half is common."""
    random = np.random.default_rng(6)
    y = random.integers(0, 2, length).astype(np.int32)
    words = random.integers(0, 40, (length, 12))
    marked = random.random((length, 12)) < 0.3 * y[:, None]
    x = np.where(marked, random.integers(30, 40, (length, 12)), words).astype(np.int32)
    return data.from_arrays(x, y)


def text():
    """Rows of words, each the last one plus 1 to 3, and the words that follow."""
    random = np.random.default_rng(7)
    steps = random.integers(1, 4, (900, 17))
    words = (np.cumsum(steps, 1) % 20).astype(np.int32)
    splits = (words[:700], words[700:800], words[800:])
    return data.Dataset(*((w[:, :-1], w[:, 1:]) for w in splits))
