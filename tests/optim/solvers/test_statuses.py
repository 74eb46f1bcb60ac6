"""What a solver says of its end is right: on published problems, and in any units."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.optim import problems

from jdl import optim

SETTLED = {optim.CONVERGED, optim.STALLED, optim.LINE_SEARCH_FAILED}

# https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml
LANCZOS_X = 0.05 * np.arange(24)
LANCZOS_Y = (
    0.0951 * np.exp(-LANCZOS_X) + 0.8607 * np.exp(-3 * LANCZOS_X) + 1.5576 * np.exp(-5 * LANCZOS_X)
)
ECKERLE_X = [*range(400, 440, 5), *np.arange(436.5, 465.1, 1.5), *range(470, 501, 5)]
ECKERLE_Y = """.0001575 .0001699 .0002350 .0003102 .0004917 .0008710 .0017418 .0046400 .0065895
.0097302 .0149002 .0237310 .0401683 .0712559 .1264458 .2073413 .2902366 .3445623 .3698049 .3668534
.3106727 .2078154 .1164354 .0616764 .0337200 .0194023 .0117831 .0074357 .0022732 .0008800 .0004579
.0002345 .0001586 .0001143 .0000710"""


def eckerle4(b):
    x, y = jnp.array(ECKERLE_X), jnp.array([float(v) for v in ECKERLE_Y.split()])
    return y - b[0] / b[1] * jnp.exp(-0.5 * ((x - b[2]) / b[1]) ** 2)


def lanczos(y):
    def residuals(b):
        x = jnp.asarray(LANCZOS_X)
        return jnp.asarray(y) - sum(b[i] * jnp.exp(-b[i + 1] * x) for i in (0, 2, 4))

    return residuals


LANCZOS = ([1.2, 0.3, 5.6, 5.5, 6.5, 7.6], [0.5, 0.7, 3.6, 4.2, 4, 6.3])
# name: residuals, the two starts of NIST, the certified sum of squares.
NIST = {
    "eckerle4": (eckerle4, ([1, 10, 500], [1.5, 5, 450]), 1.4635887487e-3),
    "mgh17": (
        problems.osborne,
        ([50, 150, -100, 1, 2], [0.5, 1.5, -1, 0.01, 0.02]),
        5.4648946975e-5,
    ),
    "mgh10": (problems.meyer, ([2, 4e5, 25000], [0.02, 4000, 250]), 8.7945855171e1),
    "lanczos2": (lanczos([float(f"{v:.5e}") for v in LANCZOS_Y]), LANCZOS, 2.2299428125e-11),
    "lanczos3": (lanczos(np.round(LANCZOS_Y, 4)), LANCZOS, 1.6117193594e-8),
}


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("name", NIST)
def test_least_squares_says_converged_at_the_certified_values_only(x64, name, start):
    residuals, starts, certified = NIST[name]
    result = optim.least_squares(residuals, jnp.array(starts[start], float), max_iterations=10_000)
    found, status = 2 * float(result.value), int(result.status)
    assert found == pytest.approx(certified, rel=1e-6)
    assert status in SETTLED


def test_an_exact_fit_is_found_to_the_last_digit(x64):
    """Lanczos1, whose certified sum of squares, 1.4e-25, is what its 14 digits leave."""
    for start in LANCZOS:
        result = optim.least_squares(
            lanczos([float(f"{v:.13e}") for v in LANCZOS_Y]), jnp.array(start, float)
        )
        assert 2 * float(result.value) < 1e-24 and int(result.status) in SETTLED


def brown(x):
    return jnp.sum(problems.brown_badly_scaled(x) ** 2)


def wood(x):
    return jnp.sum(problems.wood(x) ** 2)


@pytest.mark.parametrize(
    ("fun", "start", "method", "at_most", "evaluations"),
    [
        (brown, [1, 1], "newton", 1e-3, 20),
        (brown, [1, 1], "lbfgs", 1e-3, 60),
        (wood, [-3, -1, -3, -1], "lbfgs", 1e-8, 180),
        (wood, [-3, -1, -3, -1], "newton", 1e-8, 90),
        (lambda x: jnp.sum((x - 1e8) ** 2), [0, 0, 0], "lbfgs", 3 * 8.0**2, 30),
        (lambda x: jnp.sum((x - 1e8) ** 2), [0, 0, 0], "bfgs", 3 * 8.0**2, 30),
    ],
)
def test_badly_scaled_and_far_problems_are_solved_in_float32(
    fun, start, method, at_most, evaluations
):
    result = optim.minimize(fun, jnp.array(start, jnp.float32), method)
    assert float(result.value) <= at_most and int(result.status) in SETTLED
    assert int(result.evaluations) <= evaluations


def valley(x):
    """Rosenbrock's residuals beside one that no point makes 0: the least value is 1/2."""
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0], 1.0 + 0 * x[0]])


def solved(method, log_f, log_x, start):
    """Status, the value and the point in the units of the unscaled problem."""
    f, x = 10.0**log_f, 10.0**log_x
    if method in ("levenberg_marquardt", "gauss_newton"):
        result = optim.minimize(lambda w: valley(w / x) * jnp.sqrt(f), start * x, method)
    else:
        result = optim.minimize(lambda w: f * 0.5 * jnp.sum(valley(w / x) ** 2), start * x, method)
    return result.status, result.value / f, result.params / x


SOLVE = {
    method: jax.jit(lambda f, x, w, method=method: solved(method, f, x, w))
    for method in ("lbfgs", "bfgs", "newton", "newton_cg", "gauss_newton", "levenberg_marquardt")
}


@pytest.mark.parametrize("method", SOLVE)
@settings(max_examples=25, deadline=None)
@given(
    st.integers(-12, 12),
    st.integers(-6, 6),
    st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
)
@example(-12, 0, (-1.2, 1.0))
@example(12, 0, (-1.2, 1.0))
@example(0, -6, (-1.2, 1.0))
@example(0, 6, (-1.2, 1.0))
def test_a_status_is_right_in_any_units(method, log_f, log_x, start):
    with jax.enable_x64(True):
        status, value, point = SOLVE[method](float(log_f), float(log_x), jnp.array(start))
    assert int(status) in SETTLED
    np.testing.assert_allclose(value, 0.5, rtol=1e-9)
    np.testing.assert_allclose(point, 1, rtol=1e-4)
