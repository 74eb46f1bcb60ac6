"""Dropout in its three forms, and prediction averaged over many masks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jdl import _checks
from jdl.nn.base import Key, Layer, Number, Params, State


def dropout(rate: Number, form: str = "inverted") -> Layer:
    """Sets each element to 0 with probability `rate` in training, independently.

        inverted      training  mask * x / (1 - rate)    evaluation  x
        vanilla       training  mask * x                 evaluation  (1 - rate) * x
        monte_carlo   as inverted; and a key given in evaluation draws a mask

    Args:
      rate: the probability that an element is dropped, in [0, 1); 0 is off.
      form: which of the three. All agree in expectation; see
        `monte_carlo_prediction` for the third.

    Returns:
      A layer without parameters. Training needs a key; evaluation does not,
      and the first two forms ignore one.

    Raises:
      ValueError: `rate` or `form` is none of these; in training, no key was given.

    Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014 (vanilla).
    """
    _checks.check_number("rate", rate, "[0, 1)", "It is the share that is dropped, not kept.")
    _checks.check_choice("form", form, ["inverted", "vanilla", "monte_carlo"])

    def init(key: Key, x: Any) -> tuple[Params, State]:
        return {}, {}

    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        keep = 1 - jnp.asarray(rate, jnp.promote_types(x.dtype, jnp.float32))
        if train and key is None:
            raise ValueError(
                "dropout needs a key in training: call apply(..., key=key, train=True)."
            )
        if key is not None and (train or form == "monte_carlo"):
            mask = jax.random.uniform(key, x.shape, keep.dtype) < keep
            kept = x if form == "vanilla" else (x / keep).astype(x.dtype)
            return jnp.where(mask, kept, 0), state
        return ((keep * x).astype(x.dtype) if form == "vanilla" else x), state

    return Layer(init, apply, "dropout")
