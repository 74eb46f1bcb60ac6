"""The LeNet-like convolutional network: convolutions and pools in turn, then dense layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jdl import nn
from jdl.nn import initializer

Number = Any


def cnn(
    classes: int,
    *,
    features: Sequence[int] = (16, 32),
    kernel_size: int = 3,
    hidden: Sequence[int] = (),
    activation: Callable[..., Any] | nn.Layer = nn.relu,
    batch_norm: bool = False,
    dropout: Number | None = None,
    kernel_init: initializer.Initializer = initializer.lecun_normal,
    bias_init: initializer.Initializer = initializer.zeros,
) -> nn.Layer:
    """(convolution, norm, activation, 2x2 max pool)*, flatten, (dropout, dense, activation)*.

    The last dense layer has no activation.

    Args:
      classes: the number of outputs.
      features: the channels of each convolution; a pool after each halves the image.
      kernel_size: of every convolution, padded to keep the image's size.
      hidden: the sizes of the dense layers between.
      activation: after every convolution and every dense layer but the last.
      batch_norm: whether to normalise after each convolution.
      dropout: the rate before each dense layer, in [0, 1), 0 being off; None
        leaves the layers out of the program.
      kernel_init: of every kernel.
      bias_init: of every bias.

    Returns:
      A layer from `(batch, height, width, channels)` to `(batch, classes)`.

    Raises:
      ValueError: a number is outside its range.

    LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to
    document recognition"; LeNet-5 itself is `features=(6, 16), kernel_size=5,
    hidden=(120, 84), activation=nn.tanh` but for its subsampling.

    >>> cnn(10).name
    'cnn'
    """
    layers: list[Any] = []
    for size in features:
        layers.append(nn.conv(size, kernel_size, kernel_init=kernel_init, bias_init=bias_init))
        if batch_norm:
            layers.append(nn.batch_norm())
        layers += [activation, nn.max_pool(2)]
    layers.append(nn.flatten)
    for size in (*hidden, classes):
        if dropout is not None:
            layers.append(nn.dropout(dropout))
        layers += [nn.dense(size, kernel_init=kernel_init, bias_init=bias_init), activation]
    return nn.chain(*layers[:-1], name="cnn")
