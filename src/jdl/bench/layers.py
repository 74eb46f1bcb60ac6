"""Layers, forward and backward."""

from __future__ import annotations

from typing import Any

import jax

from jdl import nn, tree
from jdl.bench.measurement import Measurement, counts
from jdl.bench.timing import rounds
from jdl.bench.updates import normal

IMAGE = 32  # pixels along each side
HEADS = 8


def layers(features: int) -> dict[str, tuple[nn.Layer, str]]:
    """Each layer and whether it reads "images" or "sequences"."""
    return {
        "dense": (nn.dense(features), "sequences"),
        "conv2d 3x3": (nn.conv(features // 4, 3), "images"),
        "batch norm": (nn.batch_norm(), "images"),
        "layer norm": (nn.layer_norm(), "sequences"),
        "attention": (nn.multi_head_attention(HEADS, causal=True), "sequences"),
        "lstm": (nn.lstm(features), "sequences"),
    }


def both_passes(layer: nn.Layer) -> Any:
    """`(params, state, x, gradient) -> (y, state, gradients of params and x)` in training mode."""

    def run(params: Any, state: Any, x: Any, gradient: Any) -> Any:
        def forward(params: Any, x: Any) -> tuple[Any, Any]:
            return layer.apply(params, state, x, train=True)

        y, backward, after = jax.vjp(forward, params, x, has_aux=True)
        return y, after, backward(gradient)

    return run


def measured(name: str, layer: nn.Layer, shape: tuple[int, ...], length: float) -> Measurement:
    """Forward and backward pass of a layer, its gradients for parameters and input.

    Args:
      name: of the layer.
      layer: whose output has one shape for each shape of input.
      shape: of the input.
      length: seconds of a round.
    """
    x = normal(shape, 0, 1.0)
    # Drawing weights would only add programs to compile.
    params, state = jax.eval_shape(layer.init, jax.random.key(0), x)
    params = normal(jax.tree.map(lambda leaf: leaf.shape, params), 2, 0.05)
    state = tree.zeros_like(state)
    y = jax.eval_shape(lambda *args: layer.apply(*args)[0], params, state, x)
    args = params, state, x, normal(y.shape, 1, 1.0)
    function = both_passes(layer)
    compiled = jax.jit(function)
    size = "x".join(map(str, shape))
    times = rounds(lambda: compiled(*args), length)
    return Measurement("layers", name, size, str(x.dtype), 1, *counts(function, *args), times)


def shape_of(kind: str, batch: int, tokens: int, features: int) -> tuple[int, ...]:
    """The shape of `images` or `sequences`.

    >>> shape_of("images", batch=2, tokens=5, features=16)
    (2, 32, 32, 4)
    """
    return (batch, IMAGE, IMAGE, features // 4) if kind == "images" else (batch, tokens, features)
