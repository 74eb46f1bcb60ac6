"""Dropout in its three forms, and prediction averaged over many masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jdl import _checks
from jdl._promotion import promoting
from jdl.nn import activation
from jdl.nn.base import Key, Layer, Number, Params, State, as_floating, in_float32
from jdl.nn.masking import on_steps


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

    @promoting
    def init(key: Key, x: Any) -> tuple[Params, State]:
        return {}, {}

    @promoting
    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        if train and key is None:
            raise ValueError(
                "dropout needs a key in training: call apply(..., key=key, train=True)."
            )
        x = as_floating(x)
        if key is not None and (train or form == "monte_carlo"):
            keep = 1 - in_float32(rate, x)
            mask = _uniform(key, x.shape) < keep
            # A traced rate may be 1, which keeps nothing: 0 / 0 otherwise.
            kept = x if form == "vanilla" else (x / jnp.where(keep > 0, keep, 1)).astype(x.dtype)
            return jnp.where(mask, kept, 0), state
        if form == "vanilla":
            return ((1 - in_float32(rate, x)) * x).astype(x.dtype), state
        return x, state

    return on_steps(Layer(init, apply, _MONTE_CARLO if form == "monte_carlo" else "dropout"))


@promoting
def monte_carlo_prediction(
    layer: Layer,
    params: Params,
    state: State,
    x: Any,
    *,
    key: Key,
    samples: _checks.Count,
    output: Callable[[Any], Any] = activation.softmax,
) -> tuple[Any, Any]:
    """Mean and standard deviation of the prediction over `samples` dropout masks.

    Norms use their running statistics: only the masks vary. Every draw is
    computed at once, by vmap.

    Args:
      layer: a model whose dropout layers have `form="monte_carlo"`.
      params: its parameters.
      state: its state.
      x: a batch.
      key: of the masks.
      samples: how many masks.
      output: applied to each draw before averaging; softmax of the logits by
        default, `nn.identity` for a regression.

    Returns:
      `(mean, stddev)`, each of the output's shape; the standard deviation is
      that over the draws (divided by `samples`), a measure of doubt.

    Raises:
      ValueError: the model's dropout has another form, so that all draws would agree.

    Gal, Ghahramani 2016, "Dropout as a Bayesian approximation".
    """
    samples = _checks.check_count("samples", samples)
    names = set(_names(layer))
    if "dropout" in names and _MONTE_CARLO not in names:
        raise ValueError(
            "The model's dropout is off in evaluation, so that all draws would agree: "
            'build it with nn.dropout(rate, form="monte_carlo"); its parameters fit.'
        )

    def draw(key: Key) -> Any:
        return output(layer.apply(params, state, x, key=key)[0])

    draws = jax.vmap(draw)(jax.random.split(key, samples))
    return jnp.mean(draws, 0), jnp.std(draws, 0)


def _uniform(key: Key, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Numbers in [0, 1) on a grid of `2**-24`: the position hashed with two words of the key.

    `jax.random.uniform` runs 20 rounds of its cipher for each element, which on a
    CPU cost as much as the rest of a small network's training step (8.2 us beside
    5.8 us for an MLP 64-32-10 at batch 32; this hash 2.7 us). Masks need
    independence, not a cipher: a Weyl sequence from the first word through two
    rounds of multiply and xor-shift, the second word in between, so that two keys
    whose sequences overlap still part.
    """
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    h = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape) * jnp.uint32(0x9E3779B9) + first
    h = (h ^ (h >> 16)) * jnp.uint32(0x21F0AAAD) ^ second
    h = (h ^ (h >> 15)) * jnp.uint32(0xD35A2D97)
    h = h ^ (h >> 15)
    return (h >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)


_MONTE_CARLO = "monte_carlo_dropout"


def _names(layer: Layer) -> Iterator[str]:
    yield layer.name
    for part in layer.parts:
        yield from _names(part)
