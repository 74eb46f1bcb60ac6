"""Data sets as NumPy arrays, and batches drawn from them inside the compiled program."""

from jdl.data import preprocess
from jdl.data.batches import batch_indices, permute, steps_per_epoch, take
from jdl.data.cifar import cifar10, cifar100
from jdl.data.dataset import (
    DataError,
    Dataset,
    check,
    classes,
    from_arrays,
    prepare,
    split_indices,
)
from jdl.data.digits import digits
from jdl.data.idx import fashion_mnist, idx, mnist
from jdl.data.named import by_name
from jdl.data.tables import csv, npy, npz

__all__ = [
    "DataError",
    "Dataset",
    "batch_indices",
    "by_name",
    "check",
    "cifar10",
    "cifar100",
    "classes",
    "csv",
    "digits",
    "fashion_mnist",
    "from_arrays",
    "idx",
    "mnist",
    "npy",
    "npz",
    "permute",
    "prepare",
    "preprocess",
    "split_indices",
    "steps_per_epoch",
    "take",
]
