"""Data sets as NumPy arrays, and batches drawn from them inside the compiled program."""

from jdl.data import augment, preprocess, synthetic
from jdl.data.batches import batch_indices, permute, steps_per_epoch, take
from jdl.data.cifar import cifar10, cifar100
from jdl.data.dataset import Dataset, check, classes, from_arrays, prepare
from jdl.data.delimited import csv
from jdl.data.digits import digits
from jdl.data.error import DataError
from jdl.data.idx import fashion_mnist, idx, mnist
from jdl.data.named import by_name
from jdl.data.sampling import (
    Sampler,
    class_weights,
    fold_indices,
    kfold,
    sampler,
    weighted_indices,
)
from jdl.data.source import Stream
from jdl.data.split import split_indices
from jdl.data.stream import batches, prefetch
from jdl.data.tables import npy, npz
from jdl.data.text import text

__all__ = [
    "DataError",
    "Dataset",
    "Sampler",
    "Stream",
    "augment",
    "batch_indices",
    "batches",
    "by_name",
    "check",
    "cifar10",
    "cifar100",
    "class_weights",
    "classes",
    "csv",
    "digits",
    "fashion_mnist",
    "fold_indices",
    "from_arrays",
    "idx",
    "kfold",
    "mnist",
    "npy",
    "npz",
    "permute",
    "prefetch",
    "prepare",
    "preprocess",
    "sampler",
    "split_indices",
    "steps_per_epoch",
    "synthetic",
    "take",
    "text",
    "weighted_indices",
]
