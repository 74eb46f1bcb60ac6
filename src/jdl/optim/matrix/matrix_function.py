"""Functions of matrices by a fixed amount of work: an orthogonal factor and an inverse root."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from jdl._checks import Count, check_choice, check_count
from jdl._promotion import promoting
from jdl.optim._leaves import over, square
from jdl.tree import reciprocal_root, root

NEWTON_SCHULZ = {
    "standard": (3.4445, -4.7750, 2.0315),
    "dion": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
}
"""Named coefficients (a, b, c) of the quintic; a row for each iteration where they vary."""


@promoting
def orthogonalize(
    x: Inexact[Array, "*batch rows columns"],
    ns_coeffs: Any = NEWTON_SCHULZ["standard"],
    ns_steps: Count = 5,
    preconditioning: str = "frobenius",
    eps: Any = 1e-8,
) -> Inexact[Array, "*batch rows columns"]:
    """Brings the singular values of each matrix near 1 by a fixed number of Newton-Schulz steps.

        x = x / (|x| + eps);    ns_steps times:  s = x x';  x = a*x + (b*s + c*s s) x

    With the standard coefficients they end between about 0.7 and 1.2, not at 1.

    Args:
      x: matrices.
      ns_coeffs: (a, b, c), or a triple for each iteration, then `ns_steps` is not read.
      ns_steps: iterations, static.
      preconditioning: what `x` is scaled by first: "frobenius", its norm; "spectral",
        its largest singular value; "schatten", `sqrt(|x x'|)`; "aol", each row by
        the root of the sum of `|x x'|` along it.
      eps: in [0, inf); added to a norm, the least value of the other two scales.
    """
    check_choice("preconditioning", preconditioning, ["frobenius", "spectral", "aol", "schatten"])
    ns_steps = check_count("ns_steps", ns_steps, 0)
    coefficients = jnp.asarray(ns_coeffs, jnp.real(x).dtype)
    if coefficients.ndim not in (1, 2) or coefficients.shape[-1] != 3:
        raise ValueError(
            f"`ns_coeffs` must be (a, b, c) or a row of three for each iteration, got shape "
            f"{coefficients.shape}."
        )
    rows = [coefficients] * ns_steps if coefficients.ndim == 1 else list(coefficients)
    tall = x.shape[-2] > x.shape[-1]
    x = jnp.swapaxes(x, -1, -2) if tall else x
    if preconditioning in ("frobenius", "spectral"):
        spectral = preconditioning == "spectral"
        size = jnp.linalg.norm(x, 2, (-2, -1), keepdims=True) if spectral else _frobenius(x)
        x = over(x, size + eps)
    elif preconditioning == "schatten":
        x = x * reciprocal_root(jnp.maximum(_frobenius(x @ _adjoint(x)), eps))
    else:
        size = jnp.sum(jnp.abs(x @ _adjoint(x)), axis=-1, keepdims=True)
        x = x * reciprocal_root(jnp.maximum(size, eps))
    for a, b, c in rows:
        s = x @ _adjoint(x)
        x = a * x + (b * s + c * (s @ s)) @ x
    return jnp.swapaxes(x, -1, -2) if tall else x


@promoting
def inverse_root(
    matrix: Float[Array, "n n"],
    exponent: Any,
    eps: Any = 0.0,
    method: str = "eigh",
    newton_steps: Count = 40,
) -> Float[Array, "n n"]:
    """`(matrix + eps*I)**-exponent` of a symmetric positive semidefinite matrix.

    Args:
      matrix: symmetric; eigenvalues that are rounding beside the largest count as 0.
      exponent: in (0, inf). "newton" needs a Python number that is 1/p for a whole p.
      eps: added to the eigenvalues, in [0, inf). Where an eigenvalue and eps are
        both 0 the result is 0 along it, as in a pseudo-inverse.
      method: "eigh", a decomposition; or "newton", a coupled Newton iteration made
        of matrix products alone, for devices on which a decomposition is slow.
      newton_steps: of that iteration, static. Each multiplies the smallest
        eigenvalue by up to 2.7, so 40 are enough for a condition of 1e12.

    Guo and Higham, A Schur-Newton method for the matrix pth root and its inverse
    (2006), for the coupled iteration.
    """
    check_choice("method", method, ["eigh", "newton"])
    newton_steps = check_count("newton_steps", newton_steps, 0)
    if method == "eigh":
        power, offset = (jnp.asarray(x, matrix.dtype) for x in (exponent, eps))
        return _inverse_root(matrix, power, offset)
    if isinstance(exponent, jax.Array) or round(1 / exponent) != 1 / exponent:
        raise ValueError(
            f'`exponent` must be 1/p for a whole number p with method="newton", got '
            f"exponent={exponent}."
        )
    p = round(1 / exponent)
    eye = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    a = matrix + eps * eye
    # With z = (1 + p) / (2 |A|) every eigenvalue of M = z A lies in (0, (1 + p) / 2],
    # from where the iteration brings it to 1 and x to (A)**(-1/p).
    z = over(jnp.asarray((1 + p) / 2, a.dtype), _frobenius(a)[0, 0])

    def step(_: Any, pair: tuple[Array, Array]) -> tuple[Array, Array]:
        x, m = pair
        factor = ((p + 1) * eye - m) / p
        return x @ factor, jnp.linalg.matrix_power(factor, p) @ m

    return jax.lax.fori_loop(0, newton_steps, step, (inverse_power(z, -1 / p) * eye, z * a))[0]


def inverse_power(x: Array, exponent: Any) -> Array:
    """`x**-exponent`, and 0 with derivative 0 where `x` is 0."""
    return jnp.where(x > 0, jnp.where(x > 0, x, 1) ** -exponent, 0)


def _without_rounding(values: Array) -> Array:
    """Eigenvalues in rising order, with 0 for those that are rounding beside the last."""
    rounding = values.size * jnp.finfo(values.dtype).eps * values[-1]
    return jnp.where(values > rounding, values, 0)


@jax.custom_jvp
def _inverse_root(matrix: Array, exponent: Array, eps: Array) -> Array:
    values, vectors = jnp.linalg.eigh(matrix)
    powers = inverse_power(_without_rounding(values) + eps, exponent)
    return (vectors * powers[None, :]) @ vectors.T


@_inverse_root.defjvp
def _inverse_root_jvp(primals: Any, tangents: Any) -> Any:
    """The derivative of a function of a matrix, by divided differences of its eigenvalues.

    That of `eigh` itself divides by the differences alone, and is NaN where two
    eigenvalues are equal, as they are wherever a row of gradients is 0.
    """
    (matrix, exponent, eps), (change, by_exponent, by_eps) = primals, tangents
    values, vectors = jnp.linalg.eigh(matrix)
    values = _without_rounding(values) + eps
    powers = inverse_power(values, exponent)
    gap = values[:, None] - values[None, :]
    middle = (values[:, None] + values[None, :]) / 2
    near = jnp.abs(gap) <= jnp.finfo(matrix.dtype).eps ** (1 / 3) * middle
    quotient = (powers[:, None] - powers[None, :]) / jnp.where(near, 1, gap)
    slope = jnp.where(near, -exponent * inverse_power(middle, exponent + 1), quotient)
    change = vectors.T @ ((change + change.T) / 2) @ vectors + by_eps * jnp.eye(
        values.size, dtype=matrix.dtype
    )
    logarithm = jnp.log(jnp.where(values > 0, values, 1))
    inner = slope * change - by_exponent * jnp.diag(logarithm * powers)
    root = (vectors * powers[None, :]) @ vectors.T
    return root, vectors @ inner @ vectors.T


def _frobenius(x: Array) -> Array:
    return root(jnp.sum(square(x), (-2, -1), keepdims=True))


def _adjoint(x: Array) -> Array:
    return jnp.conj(jnp.swapaxes(x, -1, -2))
