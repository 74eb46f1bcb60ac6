"""Models of dense layers: the multilayer perceptron and the single sigmoid neuron."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Array, Float

from jdl import nn
from jdl.nn import initializer

Number = Any


def mlp(
    features: Sequence[int],
    *,
    activation: Callable[..., Any] | nn.Layer = nn.relu,
    batch_norm: bool = False,
    dropout: Number | None = None,
    dropout_form: str = "inverted",
    kernel_init: initializer.Initializer = initializer.lecun_normal,
    bias_init: initializer.Initializer = initializer.zeros,
) -> nn.Layer:
    """Dense layers with an activation between: flatten, (dense, norm, activation, dropout)*, dense.

    Args:
      features: the output size of each dense layer; the last is the number of
        classes or outputs. `(32, 10)` on images of 8x8 is 64-32-10.
      activation: after every dense layer but the last.
      batch_norm: whether to normalise before each activation.
      dropout: the rate after each activation, in [0, 1), 0 being off; None
        leaves the layers out of the program.
      dropout_form: see `nn.dropout`.
      kernel_init: of every dense layer's kernel.
      bias_init: of every dense layer's bias.

    Returns:
      A layer from `(batch, ...)` to `(batch, features[-1])`.

    Raises:
      ValueError: `features` is empty or a number is outside its range.

    >>> mlp((32, 10)).name
    'mlp'
    """
    if not features:
        raise ValueError(f"`features` must name at least the output's size, got {features!r}.")
    layers: list[Any] = [nn.flatten]
    for size in features[:-1]:
        layers.append(nn.dense(size, kernel_init=kernel_init, bias_init=bias_init))
        if batch_norm:
            layers.append(nn.batch_norm())
        layers.append(activation)
        if dropout is not None:
            layers.append(nn.dropout(dropout, dropout_form))
    layers.append(nn.dense(features[-1], kernel_init=kernel_init, bias_init=bias_init))
    return nn.chain(*layers, name="mlp")


def sigmoid_neuron(
    kernel_init: initializer.Initializer = initializer.lecun_normal,
    bias_init: initializer.Initializer = initializer.zeros,
) -> nn.Layer:
    """`y = 1 / (1 + exp(-(x @ w + b)))`: one neuron, from `(batch, inputs)` to `(batch,)`."""

    def only(y: Float[Array, "batch 1"]) -> Float[Array, "batch"]:
        return y.squeeze(1)

    return nn.chain(
        nn.dense(1, kernel_init=kernel_init, bias_init=bias_init),
        nn.sigmoid,
        only,
        name="sigmoid_neuron",
    )
