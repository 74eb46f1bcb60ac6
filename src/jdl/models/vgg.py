"""VGG for small images: stages of 3x3 convolutions, each stage ended by a pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jdl import nn
from jdl.nn import initializer

Number = Any


def vgg(
    classes: int,
    *,
    stages: Sequence[Sequence[int]] = ((32, 32), (64, 64), (128, 128)),
    hidden: Sequence[int] = (128,),
    batch_norm: bool = True,
    dropout: Number | None = None,
    kernel_init: initializer.Initializer = initializer.he_normal,
) -> nn.Layer:
    """((3x3 convolution, norm, ReLU)*, 2x2 max pool)*, flatten, (dense, ReLU, dropout)*, dense.

    Args:
      classes: the number of outputs.
      stages: for each stage the channels of its convolutions; the pool after it
        halves the image. VGG-16 is `((64,) * 2, (128,) * 2, (256,) * 3,
        (512,) * 3, (512,) * 3)`.
      hidden: the sizes of the dense layers between.
      batch_norm: whether to normalise after each convolution.
      dropout: the rate after each hidden dense layer, in [0, 1), 0 being off;
        None leaves the layers out of the program.
      kernel_init: of every kernel.

    Returns:
      A layer from `(batch, height, width, channels)` to `(batch, classes)`.

    Raises:
      ValueError: a number is outside its range.

    Simonyan, Zisserman 2015, "Very deep convolutional networks for large-scale
    image recognition", which had no batch norm.

    >>> vgg(10).name
    'vgg'
    """
    layers: list[Any] = []
    for stage in stages:
        for size in stage:
            layers.append(nn.conv(size, 3, kernel_init=kernel_init, use_bias=not batch_norm))
            layers += [nn.batch_norm(), nn.relu] if batch_norm else [nn.relu]
        layers.append(nn.max_pool(2))
    layers.append(nn.flatten)
    for size in hidden:
        layers += [nn.dense(size, kernel_init=kernel_init), nn.relu]
        if dropout is not None:
            layers.append(nn.dropout(dropout))
    return nn.chain(*layers, nn.dense(classes), name="vgg")
