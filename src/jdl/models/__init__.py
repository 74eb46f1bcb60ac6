"""Models composed of `jdl.nn`."""

from jdl.models.mlp import mlp, sigmoid_neuron
from jdl.models.sequence import lstm_classifier, transformer
from jdl.models.vit import vit

__all__ = ["lstm_classifier", "mlp", "sigmoid_neuron", "transformer", "vit"]
