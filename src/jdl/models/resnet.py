"""The residual network in its form for small images (CIFAR): ResNet-20 and its relatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jdl import nn
from jdl.nn import initializer


def resnet(
    classes: int,
    *,
    depth: int = 20,
    features: int = 16,
    kernel_init: initializer.Initializer = initializer.he_normal,
) -> nn.Layer:
    """Convolution, three stages of residual blocks, the mean over space, a dense layer.

    A block is `relu(x + norm(conv(relu(norm(conv(x))))))` of 3x3 convolutions. The
    second and third stage begin with a stride of 2 and twice the channels; their
    shortcuts take every second pixel and add channels of zeros (option A), so that
    they have no parameters.

    Args:
      classes: the number of outputs.
      depth: the number of layers with kernels, `6n + 2` for `n` blocks a stage:
        20, 32, 44, 56, 110.
      features: the channels of the first stage.
      kernel_init: of every convolution's kernel.

    Returns:
      A layer from `(batch, height, width, channels)` to `(batch, classes)`.
      ResNet-20 with 10 classes on 3 channels has 269,722 parameters.

    Raises:
      ValueError: `depth` is not `6n + 2`.

    He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition",
    section 4.2.

    >>> resnet(10).name
    'resnet'
    """
    blocks, rest = divmod(depth - 2, 6)
    if blocks < 1 or rest:
        raise ValueError(f"`depth` must be 6n + 2 (20, 32, 44, ...), got depth={depth!r}.")

    def norm_conv(size: int, stride: int) -> list[Any]:
        # The same one zero on each side whatever the stride.
        conv = nn.conv(size, 3, stride, 1, kernel_init=kernel_init, use_bias=False)
        return [conv, nn.batch_norm()]

    layers = [*norm_conv(features, 1), nn.relu]
    for stage in range(3):
        size = features * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            layers += [
                nn.residual(
                    *norm_conv(size, stride),
                    nn.relu,
                    *norm_conv(size, 1),
                    shortcut=None if stride == 1 else subsampled(stride, size),
                    name="block",
                ),
                nn.relu,
            ]
    return nn.chain(*layers, nn.global_avg_pool, nn.dense(classes), name="resnet")


def subsampled(stride: int, features: int) -> Callable[[Any], Any]:
    """Every `stride`-th pixel, with channels of zeros added up to `features`."""

    def shortcut(
        x: Float[Array, "batch height width channels"],
    ) -> Float[Array, "batch new_height new_width features"]:
        x = x[:, ::stride, ::stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))

    return shortcut
