"""Optimizers by name, for configurations that say which one as a string."""

from __future__ import annotations

from collections.abc import Callable

from jdl._checks import check_choice
from jdl.optim.adam import adam, adamw, nadam, nadamw
from jdl.optim.adam_max import adamax, adamaxw, amsgrad
from jdl.optim.adam_variants import adabelief, adan, radam, yogi
from jdl.optim.adaptive import adadelta, adagrad, rmsprop
from jdl.optim.base import Optimizer
from jdl.optim.descent import momentum, nesterov, sgd

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "adagrad": adagrad,
    "adadelta": adadelta,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
    "nadam": nadam,
    "nadamw": nadamw,
    "amsgrad": amsgrad,
    "adamax": adamax,
    "adamaxw": adamaxw,
    "radam": radam,
    "adabelief": adabelief,
    "yogi": yogi,
    "adan": adan,
}


def by_name(name: str) -> Callable[..., Optimizer]:
    """The constructor called `name`: `by_name("adam")(1e-3)` is `adam(1e-3)`.

    Raises:
      ValueError: no optimizer has that name; the message lists those that exist.

    >>> by_name("adam") is adam
    True
    """
    check_choice("name", name, OPTIMIZERS)
    return OPTIMIZERS[name]
