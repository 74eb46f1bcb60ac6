"""Models composed of `jdl.nn`."""

from jdl.models.convnet import cnn
from jdl.models.mlp import mlp, sigmoid_neuron
from jdl.models.resnet import resnet
from jdl.models.sequence import lstm_classifier, transformer
from jdl.models.vgg import vgg
from jdl.models.vit import vit

__all__ = ["cnn", "lstm_classifier", "mlp", "resnet", "sigmoid_neuron", "transformer", "vgg", "vit"]
