"""Models of token sequences: the LSTM classifier and the decoder-only transformer."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jdl import nn
from jdl.nn import initializer

Number = Any


def lstm_classifier(
    vocabulary: int,
    classes: int,
    *,
    features: int = 64,
    layers: int = 1,
    bidirectional: bool = False,
    padding: int | None = None,
    dropout: Number | None = None,
    forget_bias: Number = 1.0,
) -> nn.Layer:
    """Embedding, LSTMs, the final `h`, dense: from tokens `(batch, time)` to `(batch, classes)`.

    Args:
      vocabulary: the number of tokens.
      classes: the number of outputs.
      features: the size of the embedding and of each LSTM.
      layers: how many LSTMs stand on each other.
      bidirectional: whether each layer reads both ways.
      padding: the token that fills rows up at their end, which changes no
        output; None where all rows have one length.
      dropout: the rate before each layer, in [0, 1), 0 being off; None leaves
        the layers out of the program.
      forget_bias: see `nn.lstm`.

    >>> lstm_classifier(100, 2).name
    'lstm_classifier'
    """

    def masked(tokens: Any) -> Any:
        return nn.Masked(tokens, tokens != padding)

    parts: list[Any] = [] if padding is None else [masked]
    parts.append(nn.embedding(vocabulary, features))
    for index in range(layers):
        if dropout is not None:
            parts.append(nn.per_step(nn.dropout(dropout)))
        final = index == layers - 1
        forward: Any = nn.lstm(features, forget_bias=forget_bias)
        backward: Any = nn.lstm(features, forget_bias=forget_bias, reverse=True)
        if final:
            forward = nn.chain(forward, nn.last_step)
            backward = nn.chain(backward, nn.first_step)
        parts.append(nn.parallel(forward, backward) if bidirectional else forward)
    if dropout is not None:
        parts.append(nn.dropout(dropout))
    parts.append(nn.dense(classes))
    return nn.chain(*parts, name="lstm_classifier")


def transformer(
    vocabulary: int,
    *,
    length: int,
    depth: int = 4,
    features: int = 128,
    heads: int = 4,
    hidden: int | None = None,
    dropout: Number | None = None,
    stddev: Number = 0.02,
) -> nn.Layer:
    """A decoder-only transformer: tokens `(batch, time)` to the next token's logits.

    Learned positions; blocks of causal attention and a two-layer perceptron
    with GELU, each behind a layer norm and beside a shortcut; a last norm and
    a dense layer, whose kernel is not tied to the embedding.

    Args:
      vocabulary: the number of tokens.
      length: the longest sequence.
      depth: the number of blocks.
      features: the width of the stream.
      heads: of each attention; divides `features`.
      hidden: the width inside the perceptron; None is `4 * features`.
      dropout: the rate of embeddings and of each branch, in [0, 1), 0 being
        off; None leaves the layers out of the program.
      stddev: of the initial kernels and embeddings; the kernels that end a
        branch have `stddev / sqrt(2 * depth)`, so that the stream's variance
        does not grow with depth.

    Radford et al. 2019 (GPT-2).

    >>> transformer(100, length=16).name
    'transformer'
    """
    return nn.chain(
        nn.embedding(vocabulary, features, embedding_init=initializer.normal(stddev)),
        nn.learned_positions(length, embedding_init=initializer.normal(stddev)),
        *([] if dropout is None else [nn.dropout(dropout)]),
        *blocks(depth, features, heads, hidden, dropout, stddev, causal=True),
        nn.layer_norm(),
        nn.dense(vocabulary, kernel_init=initializer.normal(stddev), use_bias=False),
        name="transformer",
    )


def blocks(
    depth: int,
    features: int,
    heads: int,
    hidden: int | None,
    dropout: Number | None,
    stddev: Number,
    *,
    causal: bool,
) -> list[nn.Layer]:
    """The pre-norm blocks of a transformer, two residual layers each."""
    inner = initializer.normal(stddev)
    ending = initializer.normal(jnp.asarray(stddev) / (2 * depth) ** 0.5)
    drop = [] if dropout is None else [nn.dropout(dropout)]
    attention = nn.multi_head_attention(heads, causal=causal, kernel_init=inner, out_init=ending)
    width = 4 * features if hidden is None else hidden
    perceptron = [
        nn.dense(width, kernel_init=inner),
        nn.gelu,
        nn.dense(features, kernel_init=ending),
    ]
    block = [
        nn.residual(nn.layer_norm(), attention, *drop, name="attention"),
        nn.residual(nn.layer_norm(), *perceptron, *drop, name="perceptron"),
    ]
    return block * depth
