"""Loaders by the name that a command line or a specification gives."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from jdl._checks import check_choice
from jdl.data.cifar import cifar10, cifar100
from jdl.data.dataset import Dataset
from jdl.data.delimited import csv
from jdl.data.digits import digits
from jdl.data.idx import fashion_mnist, mnist
from jdl.data.tables import npz

LOADERS: dict[str, Callable[..., Dataset]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
}


def by_name(name: str) -> Callable[..., Dataset]:
    """The loader called `name`, or one for the file of that name if it ends in .npz or .csv.

    Args:
      name: "digits", "mnist", "fashion-mnist", "cifar10", "cifar100" (upper
        case and underscores are as good), or a path.

    Returns:
      A function of keyword arguments that gives the `Dataset`.

    Raises:
      ValueError: neither; names what is known.

    >>> by_name("digits")().test[1].shape
    (360,)
    """
    plain = os.fspath(name)
    if plain.endswith(".npz"):
        return functools.partial(npz, plain)
    if plain.endswith((".csv", ".csv.gz")):
        return functools.partial(csv, plain)
    known: Any = plain.lower().replace("_", "-")
    check_choice("name", known, LOADERS)
    return LOADERS[known]
