"""Autoencoders: a trial whose target is its input."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jdl import losses, nn
from jdl._checks import check_number
from jdl.engine.trial import Batch, Trial, adapted
from jdl.optim import Optimizer
from jdl.train.supervised import supervised


def autoencoder(
    encoder: Any,
    decoder: Any,
    optimizer: Optimizer,
    *,
    noise: Any = None,
    l2: Any = None,
) -> Trial:
    """A trial that trains `decoder(encoder(x))` to be `x`, by squared error.

    The labels of the data set are not looked at. `predict` gives the
    reconstruction, and the code is `encoder` applied to the first part of the
    parameters.

    Args:
      encoder: a layer or function of `x`.
      decoder: gives as many numbers as `x` has, in any shape.
      optimizer: any `(init, update)` pair.
      noise: the deviation of normal noise added to the inputs in training, not
        to what they are compared with, in [0, inf); None leaves it out.
      l2: as in `supervised`.

    >>> from jdl import nn, optim
    >>> encoder = nn.chain(nn.flatten, nn.dense(32), nn.relu, nn.dense(8))
    >>> decoder = nn.chain(nn.relu, nn.dense(32), nn.relu, nn.dense(64))
    >>> trial = autoencoder(encoder, decoder, optim.adam(1e-3), noise=0.3)

    Vincent, Larochelle, Bengio, Manzagol 2008 (with noise).
    """
    if noise is not None:
        check_number("noise", noise, "[0, inf)")

    def blur(key: Any, batch: Batch) -> Batch:
        x, target = batch
        return x + noise * jax.random.normal(key, x.shape, x.dtype), target

    def loss(outputs: Any, x: Any) -> Float[Array, " batch"]:
        return losses.squared_error(outputs.reshape(x.shape), jnp.asarray(x))

    trial = supervised(
        nn.chain(encoder, decoder, name="autoencoder"),
        optimizer,
        loss,
        l2=l2,
        augment=None if noise is None else blur,
    )

    def x_twice(batch: Any) -> Any:
        return batch[0], batch[0]

    return adapted(trial, batch=x_twice)
