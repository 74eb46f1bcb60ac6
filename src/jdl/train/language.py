"""Language models: a trial that predicts each next token, and its perplexity."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jdl import losses, metrics, nn
from jdl.engine.trial import Trial
from jdl.optim import Optimizer
from jdl.train.supervised import supervised


def language_model(model: nn.Layer, optimizer: Optimizer, *, l2: Any = None) -> Trial:
    """A trial that trains `model` to give the logits of the token that follows each token.

    The "loss" is in nats a token, and `perplexity` makes of it how many equally
    likely tokens would be as hard to guess. The "accuracy" is the share of
    tokens guessed. `predict` gives probabilities.

    Args:
      model: from integer tokens (batch, time) to logits (batch, time, vocabulary),
        looking at no later token: `models.transformer(256, length=128)`, or an
        embedding, an `nn.lstm` and a dense layer.
      optimizer: any `(init, update)` pair.
      l2: as in `supervised`.

    >>> from jdl import data, models, optim
    >>> trial = language_model(models.transformer(256, length=64), optim.adam(1e-3))
    """

    # Embeddings index with int32; a text of bytes lies on the device as bytes.
    def tokens(x: Any) -> Any:
        return x.astype(jnp.int32)

    return supervised(
        nn.chain(tokens, model),
        optimizer,
        lambda logits, y: losses.softmax_cross_entropy(logits, tokens(y)),
        metrics={"accuracy": lambda logits, y: metrics.accuracy(logits, tokens(y))},
        l2=l2,
        output=nn.softmax,
    )


def perplexity(loss: Any) -> Any:
    """`exp(loss)`, of a mean loss in nats a token: not a mean of perplexities.

    >>> round(float(perplexity(2.0)), 4)
    7.3891
    """
    return np.exp(loss)
