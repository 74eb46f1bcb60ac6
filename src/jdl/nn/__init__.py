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
from jdl.nn.attention import learned_positions, multi_head_attention, sinusoidal_positions
from jdl.nn.base import Apply, Layer, Masked, composed
from jdl.nn.batch_stats import recompute_batch_stats
from jdl.nn.compose import as_layer, chain, concatenate, flatten, parallel, per_step, residual
from jdl.nn.convolution import conv, convolve
from jdl.nn.dropout import dropout, monte_carlo_prediction
from jdl.nn.linear import dense, embedding, maxout, prelu
from jdl.nn.normalization import (
    batch_norm,
    group_norm,
    layer_norm,
    rms_norm,
)
from jdl.nn.pooling import avg_pool, global_avg_pool, global_max_pool, max_pool
from jdl.nn.precision import Policy, with_policy
from jdl.nn.recurrent import first_step, gru, last_step, lstm, mean_step, rnn
from jdl.nn.summary import Call, Row, Summary, flops, record, summary

__all__ = [
    "Apply",
    "Call",
    "Layer",
    "Masked",
    "Policy",
    "Row",
    "Summary",
    "as_layer",
    "avg_pool",
    "batch_norm",
    "chain",
    "composed",
    "concatenate",
    "conv",
    "convolve",
    "dense",
    "dropout",
    "elu",
    "embedding",
    "first_step",
    "flatten",
    "flops",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "group_norm",
    "gru",
    "identity",
    "initializer",
    "last_step",
    "layer_norm",
    "leaky_relu",
    "learned_positions",
    "log_softmax",
    "lstm",
    "max_pool",
    "maxout",
    "mean_step",
    "monte_carlo_prediction",
    "multi_head_attention",
    "parallel",
    "per_step",
    "prelu",
    "recompute_batch_stats",
    "record",
    "relu",
    "residual",
    "rms_norm",
    "rnn",
    "selu",
    "sigmoid",
    "silu",
    "sinusoidal_positions",
    "softmax",
    "softplus",
    "summary",
    "tanh",
    "with_policy",
]
