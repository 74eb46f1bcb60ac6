"""The problems of Moré, Garbow and Hillstrom (1981), as residual vectors with published minima.

The objective of each is the sum of the squared residuals. `minimum` is what the
paper prints (a tuple where it lists several local minima).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Problem(NamedTuple):
    name: str
    residuals: Callable
    start: tuple[float, ...]
    minimum: tuple[float, ...]


def rosenbrock(x):
    return jnp.concatenate([10 * (x[1::2] - x[::2] ** 2), 1 - x[::2]])


def freudenstein_roth(x):
    a, b = x
    return jnp.stack([-13 + a + ((5 - b) * b - 2) * b, -29 + a + ((b + 1) * b - 14) * b])


def powell_badly_scaled(x):
    return jnp.stack([1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001])


def brown_badly_scaled(x):
    return jnp.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2])


def beale(x):
    return jnp.array([1.5, 2.25, 2.625]) - x[0] * (1 - x[1] ** jnp.arange(1, 4))


def jennrich_sampson(x):
    i = jnp.arange(1.0, 11.0)
    return 2 + 2 * i - (jnp.exp(i * x[0]) + jnp.exp(i * x[1]))


def helical_valley(x):
    angle = jnp.arctan2(x[1], x[0]) / (2 * np.pi)
    return jnp.stack([10 * (x[2] - 10 * angle), 10 * (jnp.hypot(x[0], x[1]) - 1), x[2]])


BARD = [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39]


def bard(x):
    u = jnp.arange(1.0, 16.0)
    v = 16 - u
    return jnp.array(BARD) - (x[0] + u / (v * x[1] + jnp.minimum(u, v) * x[2]))


GAUSSIAN = [0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521, 0.3989]


def gaussian(x):
    y = jnp.array(GAUSSIAN + GAUSSIAN[-2::-1])
    t = (8 - jnp.arange(1.0, 16.0)) / 2
    return x[0] * jnp.exp(-x[1] * (t - x[2]) ** 2 / 2) - y


MEYER = [34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744]
MEYER += [8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872]


def meyer(x):
    t = 45 + 5 * jnp.arange(1.0, 17.0)
    return x[0] * jnp.exp(x[1] / (t + x[2])) - jnp.array(MEYER, x.dtype)


def box_three_dimensional(x):
    t = 0.1 * jnp.arange(1.0, 11.0)
    return jnp.exp(-t * x[0]) - jnp.exp(-t * x[1]) - x[2] * (jnp.exp(-t) - jnp.exp(-10 * t))


def powell_singular(x):
    a, b, c, d = x[::4], x[1::4], x[2::4], x[3::4]
    return jnp.concatenate(
        [a + 10 * b, np.sqrt(5) * (c - d), (b - 2 * c) ** 2, np.sqrt(10) * (a - d) ** 2]
    )


def wood(x):
    a, b, c, d = x
    return jnp.stack(
        [
            10 * (b - a**2),
            1 - a,
            np.sqrt(90) * (d - c**2),
            1 - c,
            np.sqrt(10) * (b + d - 2),
            (b - d) / np.sqrt(10),
        ]
    )


KOWALIK = [0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246]
KOWALIK_U = [4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625]


def kowalik_osborne(x):
    u = jnp.array(KOWALIK_U)
    return jnp.array(KOWALIK) - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def brown_dennis(x):
    t = jnp.arange(1.0, 21.0) / 5
    return (x[0] + t * x[1] - jnp.exp(t)) ** 2 + (x[2] + x[3] * jnp.sin(t) - jnp.cos(t)) ** 2


OSBORNE = [844, 908, 932, 936, 925, 908, 881, 850, 818, 784, 751]
OSBORNE += [718, 685, 658, 628, 603, 580, 558, 538, 522, 506, 490]
OSBORNE += [478, 467, 457, 448, 438, 431, 424, 420, 414, 411, 406]


def osborne(x):
    t = 10 * jnp.arange(33.0)
    fit = x[0] + x[1] * jnp.exp(-t * x[3]) + x[2] * jnp.exp(-t * x[4])
    return jnp.array(OSBORNE, x.dtype) / 1000 - fit


def biggs(x):
    t = 0.1 * jnp.arange(1.0, 14.0)
    y = jnp.exp(-t) - 5 * jnp.exp(-10 * t) + 3 * jnp.exp(-4 * t)
    return x[2] * jnp.exp(-t * x[0]) - x[3] * jnp.exp(-t * x[1]) + x[5] * jnp.exp(-t * x[4]) - y


def watson(x):
    t = jnp.arange(1.0, 30.0)[:, None] / 29
    j = jnp.arange(1.0, x.size + 1.0)[None, :]
    slope = jnp.sum((j[:, 1:] - 1) * x[None, 1:] * t ** (j[:, 1:] - 2), 1)
    curve = jnp.sum(x[None, :] * t ** (j - 1), 1)
    return jnp.concatenate([slope - curve**2 - 1, x[:1], x[1:2] - x[:1] ** 2 - 1])


def penalty(x):
    return jnp.concatenate([np.sqrt(1e-5) * (x - 1), jnp.sum(x**2)[None] - 0.25])


def variably_dimensioned(x):
    total = jnp.sum(jnp.arange(1.0, x.size + 1.0) * (x - 1))
    return jnp.concatenate([x - 1, total[None], total[None] ** 2])


def trigonometric(x):
    i = jnp.arange(1.0, x.size + 1.0)
    return x.size - jnp.sum(jnp.cos(x)) + i * (1 - jnp.cos(x)) - jnp.sin(x)


def brown_almost_linear(x):
    return jnp.concatenate([x[:-1] + jnp.sum(x) - (x.size + 1), jnp.prod(x)[None] - 1])


def discrete_boundary_value(x):
    h = 1 / (x.size + 1)
    t = h * jnp.arange(1.0, x.size + 1.0)
    padded = jnp.pad(x, 1)
    return 2 * x - padded[:-2] - padded[2:] + h**2 * (x + t + 1) ** 3 / 2


def broyden_tridiagonal(x):
    padded = jnp.pad(x, 1)
    return (3 - 2 * x) * x - padded[:-2] - 2 * padded[2:] + 1


def linear_full_rank(x):
    mean = 2 * jnp.sum(x) / 20
    return jnp.concatenate([x - mean - 1, jnp.full(20 - x.size, 1.0) * (-mean - 1)])


def chebyquad(x):
    y = 2 * x - 1
    before, now, rows = jnp.ones_like(y), y, []
    for i in range(1, x.size + 1):
        exact = 0.0 if i % 2 else -1 / (i**2 - 1)
        rows.append(jnp.mean(now) - exact)
        before, now = now, 2 * y * now - before
    return jnp.stack(rows)


def _ramp(n):
    return np.arange(1, n + 1) / (n + 1)


PROBLEMS = [
    Problem("rosenbrock", rosenbrock, (-1.2, 1), (0,)),
    Problem("freudenstein_roth", freudenstein_roth, (0.5, -2), (0, 48.98425)),
    Problem("powell_badly_scaled", powell_badly_scaled, (0, 1), (0,)),
    Problem("brown_badly_scaled", brown_badly_scaled, (1, 1), (0,)),
    Problem("beale", beale, (1, 1), (0,)),
    Problem("jennrich_sampson", jennrich_sampson, (0.3, 0.4), (124.362,)),
    Problem("helical_valley", helical_valley, (-1, 0, 0), (0,)),
    Problem("bard", bard, (1, 1, 1), (8.21487e-3,)),
    Problem("gaussian", gaussian, (0.4, 1, 0), (1.12793e-8,)),
    Problem("meyer", meyer, (0.02, 4000, 250), (87.9458,)),
    Problem("box_three_dimensional", box_three_dimensional, (0, 10, 20), (0,)),
    Problem("powell_singular", powell_singular, (3, -1, 0, 1), (0,)),
    Problem("wood", wood, (-3, -1, -3, -1), (0,)),
    Problem("kowalik_osborne", kowalik_osborne, (0.25, 0.39, 0.415, 0.39), (3.07505e-4,)),
    Problem("brown_dennis", brown_dennis, (25, 5, -5, -1), (85822.2,)),
    Problem("osborne", osborne, (0.5, 1.5, -1, 0.01, 0.02), (5.46489e-5,)),
    Problem("biggs", biggs, (1, 2, 1, 1, 1, 1), (5.65565e-3, 0)),
    Problem("watson", watson, (0,) * 6, (2.28767e-3,)),
    Problem("penalty", penalty, tuple(range(1, 11)), (7.08765e-5,)),
    Problem("variably_dimensioned", variably_dimensioned, tuple(1 - np.arange(1, 11) / 10), (0,)),
    Problem("trigonometric", trigonometric, (0.1,) * 10, (0, 2.79506e-5)),
    Problem("brown_almost_linear", brown_almost_linear, (0.5,) * 10, (0, 1)),
    Problem(
        "discrete_boundary_value",
        discrete_boundary_value,
        tuple(_ramp(10) * (_ramp(10) - 1)),
        (0,),
    ),
    Problem("broyden_tridiagonal", broyden_tridiagonal, (-1,) * 10, (0,)),
    Problem("linear_full_rank", linear_full_rank, (1,) * 10, (10,)),
    Problem("chebyquad", chebyquad, tuple(_ramp(8)), (3.51687e-3,)),
]
SIZE = max(len(problem.start) for problem in PROBLEMS)


def padded_starts(dtype=np.float64):
    """The starting points as rows of one array, zeros after each problem's own."""
    rows = np.zeros((len(PROBLEMS), SIZE), dtype)
    for row, problem in zip(rows, PROBLEMS):
        row[: len(problem.start)] = problem.start
    return rows


def objective(x, index):
    """The sum of squares of problem `index` at the first entries of `x`, so that one
    compiled solver serves every problem; the entries beyond have no gradient."""
    branches = [
        lambda x, p=problem: jnp.sum(p.residuals(x[: len(p.start)]) ** 2) for problem in PROBLEMS
    ]
    return jax.lax.switch(index, branches, x)
