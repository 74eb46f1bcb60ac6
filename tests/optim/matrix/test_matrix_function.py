"""Newton-Schulz and inverse roots against recordings, formulas and properties."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

from jdl import optim
from jdl.optim.matrix.matrix_function import NEWTON_SCHULZ


def random_matrices(*shape):
    return jnp.asarray(np.random.default_rng(2).normal(size=shape))


@pytest.mark.parametrize("preconditioning", ["frobenius", "spectral", "aol", "schatten"])
def test_orthogonalize_maps_the_singular_values_by_the_quintic(preconditioning, x64):
    x = np.asarray(random_matrices(5, 3))
    u, s, v = np.linalg.svd(x, full_matrices=False)
    left = x
    if preconditioning == "frobenius":
        s = s / (np.linalg.norm(x) + 0.1)
    elif preconditioning == "spectral":
        s = s / (s[0] + 0.1)
    elif preconditioning == "schatten":
        s = s / np.sqrt(np.linalg.norm(x.T @ x))
    else:
        left = x / np.sqrt(np.abs(x.T @ x).sum(axis=0))[None, :]
        u, s, v = np.linalg.svd(left, full_matrices=False)
    for _ in range(4):
        s = 3.0 * s - 3.2 * s**3 + 1.2 * s**5
    for matrix, expected in ((x, u @ np.diag(s) @ v), (x.T, (u @ np.diag(s) @ v).T)):
        found = optim.orthogonalize(jnp.asarray(matrix), (3.0, -3.2, 1.2), 4, preconditioning, 0.1)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


def test_orthogonalize_floors_the_scale_of_a_small_matrix(x64):
    x = 1e-3 * random_matrices(2, 4)
    for kind in ("aol", "schatten"):
        found = optim.orthogonalize(x, (1.0, 0.0, 0.0), 1, kind, 0.25)
        np.testing.assert_allclose(found, x / 0.5, rtol=1e-12)
    np.testing.assert_array_equal(optim.orthogonalize(0 * x, eps=0.0), 0)


def test_orthogonalize_takes_a_triple_for_each_iteration(x64):
    x = random_matrices(2, 3, 4)
    rows = ((3.0, -3.2, 1.2), (1.5, -0.5, 0.0))
    first = optim.orthogonalize(x, rows[:1], 9, "frobenius", 0.0)
    both = optim.orthogonalize(x, rows, 9, "frobenius", 0.0)
    s = first @ jnp.swapaxes(first, 1, 2)
    np.testing.assert_allclose(both, 1.5 * first - 0.5 * s @ first, rtol=1e-12, atol=1e-14)
    for single, batch in zip(x, both, strict=True):
        alone = optim.orthogonalize(single, rows, 9, "frobenius", 0.0)
        np.testing.assert_allclose(alone, batch, rtol=1e-12)


def test_standard_coefficients_bring_singular_values_near_one():
    s = np.linalg.svd(optim.orthogonalize(random_matrices(8, 30)), compute_uv=False)
    assert s.min() > 0.6 and s.max() < 1.25


def test_named_coefficients_are_the_published_ones():
    """Jordan et al., Muon (2024), and the five that Dion (Ahn et al. 2025) computes."""
    assert NEWTON_SCHULZ == {
        "standard": (3.4445, -4.7750, 2.0315),
        "dion": (
            (4.0848, -6.8946, 2.9270),
            (3.9505, -6.3029, 2.6377),
            (3.7418, -5.5913, 2.3037),
            (2.8769, -3.1427, 1.2046),
            (2.8366, -3.0525, 1.2012),
        ),
    }
    s = np.linspace(0.02, 1, 200)
    for a, b, c in NEWTON_SCHULZ["dion"]:
        s = a * s + b * s**3 + c * s**5
    assert s.min() > 0.9 and s.max() < 1.1


def test_orthogonalize_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"`preconditioning` must be one of 'frobenius', 'spe"):
        optim.orthogonalize(jnp.eye(2), preconditioning="none")
    for coefficients in ((1.0, 2.0), jnp.ones((1, 1, 3))):
        with pytest.raises(ValueError, match=r"`ns_coeffs` must be \(a, b, c\) .* got shape \("):
            optim.orthogonalize(jnp.eye(2), coefficients)


@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_inverse_root_is_scipy_s_fractional_power(method, x64):
    x = np.asarray(random_matrices(4, 9))
    matrix = x @ x.T
    for p, eps in ((2, 0.0), (4, 0.3), (6, 0.0)):
        expected = linalg.fractional_matrix_power(matrix + eps * np.eye(4), -1 / p)
        found = optim.inverse_root(jnp.asarray(matrix), 1 / p, eps, method)
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_newton_s_iteration_reaches_a_condition_of_1e12(x64):
    q = np.linalg.qr(np.asarray(random_matrices(3, 3)))[0]
    matrix = q @ np.diag([1e-9, 1.0, 1e3]) @ q.T
    root = optim.inverse_root(jnp.asarray((matrix + matrix.T) / 2), 0.25, 0.0, "newton")
    np.testing.assert_allclose(np.linalg.eigvalsh(root)[-1], 1e-9**-0.25, rtol=1e-5)
    short = optim.inverse_root(jnp.asarray(matrix), 0.25, 0.0, "newton", 20)
    assert np.linalg.eigvalsh(short)[-1] < 0.9 * 1e-9**-0.25


def test_inverse_root_of_a_singular_matrix_is_a_pseudo_inverse(x64):
    matrix = jnp.diag(jnp.array([16.0, 0.0, -1e-18]))
    np.testing.assert_allclose(optim.inverse_root(matrix, 0.25), np.diag([0.5, 0, 0]), atol=1e-15)
    np.testing.assert_array_equal(optim.inverse_root(0 * matrix, 0.25, method="newton"), 0)


def test_inverse_root_says_what_newton_cannot_do():
    message = r"`exponent` must be 1/p for a whole number p .*got exponent=0.3"
    with pytest.raises(ValueError, match=message):
        optim.inverse_root(jnp.eye(2), 0.3, method="newton")
    with pytest.raises(ValueError, match="`exponent` must be 1/p"):
        optim.inverse_root(jnp.eye(2), jnp.float32(0.5), method="newton")
    with pytest.raises(ValueError, match="`method` must be one of 'eigh', 'newton'"):
        optim.inverse_root(jnp.eye(2), 0.5, method="svd")
