"""Layers: pairs of pure functions, and the plain functions that stand between them."""

from jdl.nn import initializer
from jdl.nn.activation import (
    elu,
    gelu,
    identity,
    leaky_relu,
    log_softmax,
    relu,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from jdl.nn.base import Apply, Layer, Masked, composed
from jdl.nn.compose import as_layer, chain, concatenate, flatten, parallel, per_step, residual
from jdl.nn.dropout import dropout
from jdl.nn.linear import dense
from jdl.nn.normalization import batch_norm

__all__ = [
    "Apply",
    "Layer",
    "Masked",
    "as_layer",
    "batch_norm",
    "chain",
    "composed",
    "concatenate",
    "dense",
    "dropout",
    "elu",
    "flatten",
    "gelu",
    "identity",
    "initializer",
    "leaky_relu",
    "log_softmax",
    "parallel",
    "per_step",
    "relu",
    "residual",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
]
