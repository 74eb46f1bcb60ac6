"""Optimizers by name, for configurations that say which one as a string."""

from __future__ import annotations

from collections.abc import Callable

from jdl._checks import check_choice
from jdl.optim.base import Optimizer
from jdl.optim.elementwise.adam import adam, adamw, nadam, nadamw
from jdl.optim.elementwise.adam_max import adamax, adamaxw, amsgrad
from jdl.optim.elementwise.adam_variants import adabelief, radam, yogi
from jdl.optim.elementwise.adan import adan
from jdl.optim.elementwise.adaptive import adadelta, adagrad, rmsprop
from jdl.optim.elementwise.ademamix import ademamix
from jdl.optim.elementwise.adopt import adopt
from jdl.optim.elementwise.descent import momentum, nesterov, sgd
from jdl.optim.elementwise.langevin import noisy_sgd, sgld
from jdl.optim.elementwise.sign import lion, rprop, sign_sgd, signum
from jdl.optim.elementwise.sophia import sophia
from jdl.optim.free.distance import dog, dowg
from jdl.optim.free.parameter_free import dadapt_adamw, prodigy
from jdl.optim.free.polyak import asgd, polyak_sgd
from jdl.optim.free.schedule_free import schedule_free_adamw, schedule_free_sgd
from jdl.optim.matrix.factored import adafactor
from jdl.optim.matrix.layerwise import lamb, lars
from jdl.optim.matrix.muon import muon
from jdl.optim.matrix.shampoo import shampoo
from jdl.optim.matrix.soap import soap

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
    "sign_sgd": sign_sgd,
    "signum": signum,
    "lion": lion,
    "rprop": rprop,
    "lars": lars,
    "lamb": lamb,
    "adafactor": adafactor,
    "ademamix": ademamix,
    "adopt": adopt,
    "muon": muon,
    "shampoo": shampoo,
    "soap": soap,
    "schedule_free_sgd": schedule_free_sgd,
    "schedule_free_adamw": schedule_free_adamw,
    "prodigy": prodigy,
    "dadapt_adamw": dadapt_adamw,
    "dog": dog,
    "dowg": dowg,
    "sophia": sophia,
    "polyak_sgd": polyak_sgd,
    "asgd": asgd,
    "noisy_sgd": noisy_sgd,
    "sgld": sgld,
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
