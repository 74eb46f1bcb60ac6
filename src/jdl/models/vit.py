"""The vision transformer: an image as a sequence of patches."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float

from jdl import nn
from jdl.models.sequence import blocks
from jdl.nn import initializer
from jdl.nn.sharding import along_batch

Number = Any


def patches(
    images: Float[Array, "batch height width channels"], size: int
) -> Float[Array, "batch patches features"]:
    """The images cut into squares of `size`, row by row, each flattened.

    Raises:
      ValueError: `size` does not divide height and width.
    """
    batch, height, width, channels = images.shape
    if height % size or width % size:
        raise ValueError(f"`patch` must divide the image's {height}x{width}, got patch={size}.")
    grid = images.reshape(batch, height // size, size, width // size, size, channels)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, size * size * channels)


def vit(
    classes: int,
    *,
    patch: int = 4,
    depth: int = 4,
    features: int = 64,
    heads: int = 4,
    hidden: int | None = None,
    dropout: Number | None = None,
    stddev: Number = 0.02,
) -> nn.Layer:
    """A small vision transformer: images `(batch, height, width, channels)` to `(batch, classes)`.

    Patches, a dense layer, positions (fixed waves), transformer blocks that see
    everything, a last norm, the mean over patches, a dense layer.

    Args:
      classes: the number of outputs.
      patch: the side of a patch; divides height and width.
      depth: the number of blocks.
      features: the width of the stream, even.
      heads: of each attention; divides `features`.
      hidden: the width inside the perceptron; None is `4 * features`.
      dropout: as in `transformer`.
      stddev: as in `transformer`.

    Dosovitskiy et al. 2021; mean instead of class token and fixed positions as
    in Beyer, Zhai, Kolesnikov 2022, "Better plain ViT baselines for ImageNet-1k".

    >>> vit(10).name
    'vit'
    """

    def cut(images: Any) -> Any:
        return along_batch(lambda images: patches(images, patch))(images)

    return nn.chain(
        cut,
        nn.dense(features),
        nn.sinusoidal_positions,
        *([] if dropout is None else [nn.dropout(dropout)]),
        *blocks(depth, features, heads, hidden, dropout, stddev, causal=False),
        nn.layer_norm(),
        nn.mean_step,
        nn.dense(classes, kernel_init=initializer.normal(stddev)),
        name="vit",
    )
