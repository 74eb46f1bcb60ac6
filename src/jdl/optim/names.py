"""Optimizers by name, for configurations that say which one as a string."""

from __future__ import annotations

from collections.abc import Callable

from jdl._checks import check_choice
from jdl.optim.adam import adam, adamw, nadam, nadamw
from jdl.optim.adam_max import adamax, adamaxw, amsgrad
from jdl.optim.adam_variants import adabelief, adan, radam, yogi
from jdl.optim.adaptive import adadelta, adagrad, rmsprop
from jdl.optim.ademamix import ademamix
from jdl.optim.adopt import adopt
from jdl.optim.base import Optimizer
from jdl.optim.descent import momentum, nesterov, sgd
from jdl.optim.distance import dog, dowg
from jdl.optim.factored import adafactor
from jdl.optim.langevin import noisy_sgd, sgld
from jdl.optim.layerwise import lamb, lars
from jdl.optim.muon import muon
from jdl.optim.parameter_free import dadapt_adamw, prodigy
from jdl.optim.polyak import asgd, polyak_sgd
from jdl.optim.schedule_free import schedule_free_adamw, schedule_free_sgd
from jdl.optim.shampoo import shampoo
from jdl.optim.sign import lion, rprop, sign_sgd, signum
from jdl.optim.soap import soap
from jdl.optim.sophia import sophia

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
