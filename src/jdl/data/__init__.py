"""Data sets as NumPy arrays, and batches drawn from them inside the compiled program."""

from jdl.data.batches import batch_indices, permute, steps_per_epoch, take
from jdl.data.dataset import (
    DataError,
    Dataset,
    check,
    classes,
    from_arrays,
    split_indices,
    standardized,
)
from jdl.data.digits import digits

__all__ = [
    "DataError",
    "Dataset",
    "batch_indices",
    "check",
    "classes",
    "digits",
    "from_arrays",
    "permute",
    "split_indices",
    "standardized",
    "steps_per_epoch",
    "take",
]
