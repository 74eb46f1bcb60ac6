"""Models composed of `jdl.nn`."""

from jdl.models.mlp import mlp, sigmoid_neuron

__all__ = ["mlp", "sigmoid_neuron"]
