"""Activations: plain functions of `x`, array or `Masked`, which a chain takes as they are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, Shaped

from jdl import _checks
from jdl._promotion import promoting
from jdl.nn.base import Number, as_floating, in_float32
from jdl.nn.masking import of_values


@of_values
@promoting
def identity(x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """`x`: the output of a regression."""
    return x


@of_values
@promoting
def sigmoid(x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`1 / (1 + exp(-x))`: in (0, 1), never zero-centred, flat for large `|x|`."""
    return jax.nn.sigmoid(as_floating(x))


@of_values
@promoting
def tanh(x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`(exp(x) - exp(-x)) / (exp(x) + exp(-x))`: zero-centred, flat for large `|x|`."""
    return jnp.tanh(as_floating(x))


@of_values
@promoting
def relu(x: Num[Array, "*shape"]) -> Num[Array, "*shape"]:
    """`max(x, 0)`; the gradient at 0 is 0."""
    return jax.nn.relu(x)


@of_values
@promoting
def leaky_relu(x: Num[Array, "*shape"], slope: Number = 0.01) -> Float[Array, "*shape"]:
    """`x` where positive, else `slope * x`: a unit that is off still learns.

    Args:
      x: any shape.
      slope: in (-inf, inf); 0 is ReLU, 1 the identity.
    """
    _checks.check_number("slope", slope, "(-inf, inf)")
    x = as_floating(x)
    return jnp.where(x > 0, x, (in_float32(slope, x) * x).astype(x.dtype))


@of_values
@promoting
def elu(x: Num[Array, "*shape"], alpha: Number = 1.0) -> Float[Array, "*shape"]:
    """`x` where positive, else `alpha * (exp(x) - 1)`.

    Args:
      x: any shape.
      alpha: minus the value for large negative `x`, in [0, inf); 0 is ReLU.

    Clevert, Unterthiner, Hochreiter 2016.
    """
    _checks.check_number("alpha", alpha, "[0, inf)")
    x = as_floating(x)
    # The exponential of a large positive x, unused, would still make its gradient NaN.
    negative = jnp.where(x > 0, 0, x)
    return jnp.where(x > 0, x, (in_float32(alpha, x) * jnp.expm1(negative)).astype(x.dtype))


@of_values
@promoting
def selu(x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`1.0507 * elu(x, 1.6733)`: keeps mean 0 and variance 1 through depth with LeCun normal.

    Klambauer, Unterthiner, Mayr, Hochreiter 2017.
    """
    return jax.nn.selu(as_floating(x))


@of_values
@promoting
def softplus(x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`log(1 + exp(x))`: a smooth ReLU."""
    return jax.nn.softplus(as_floating(x))


@of_values
@promoting
def gelu(x: Num[Array, "*shape"], approximate: bool = True) -> Float[Array, "*shape"]:
    """`x * Phi(x)`, `Phi` the normal distribution function.

    Args:
      x: any shape.
      approximate: whether to use the tanh form of equation 2, as `jax.nn.gelu`
        does by default; torch's default is the exact one.

    Hendrycks, Gimpel 2016.
    """
    return jax.nn.gelu(as_floating(x), approximate)


@of_values
@promoting
def silu(x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`x * sigmoid(x)`, also called swish."""
    return jax.nn.silu(as_floating(x))


@of_values
@promoting
def softmax(x: Num[Array, "*shape"], axis: int = -1) -> Float[Array, "*shape"]:
    """`exp(x) / sum(exp(x))` along `axis`. Losses take logits: this is for probabilities."""
    return jax.nn.softmax(as_floating(x), axis)


@of_values
@promoting
def log_softmax(x: Num[Array, "*shape"], axis: int = -1) -> Float[Array, "*shape"]:
    """`log(softmax(x))` along `axis`, without under- or overflow."""
    return jax.nn.log_softmax(as_floating(x), axis)
