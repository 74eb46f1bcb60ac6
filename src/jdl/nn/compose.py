"""Composition: layers in a row, around a shortcut, side by side; and flattening between them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Shaped

from jdl._promotion import promoting
from jdl.nn.base import Key, Layer, Masked, Params, State, composed, output_shape, part_key
from jdl.nn.masking import filled, real_steps, refuse_masked


def as_layer(part: Any) -> Layer:
    """`part` itself if it is a `Layer`; a plain function of `x` as a layer without parameters.

    Raises:
      TypeError: `part` is neither, or is a constructor that was not called.

    >>> import jax.numpy as jnp
    >>> as_layer(jnp.tanh).name
    'tanh'
    """
    if isinstance(part, Layer):
        return part
    if not callable(part):
        raise TypeError(f"A part of a model must be a Layer or a function of x, got {part!r}.")
    function = part
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", type(function).__name__)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        return {}, {}

    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        y = part(x)
        if isinstance(y, Layer):
            raise TypeError(
                f"`{name}` makes a layer and was given where a layer is expected: "
                f"call it, as in `{name}()`."
            )
        return y, state

    return Layer(init, apply, name)


def chain(*layers: Any, name: str = "chain") -> Layer:
    """The layers one after another: `y = layers[-1](...layers[1](layers[0](x)))`.

    Parameters and state are tuples with one entry per layer given. Layer `i`
    draws from `fold_in(key, i)`, at initialisation and in training.

    Args:
      layers: `Layer`s and plain functions of `x`, in any mixture.
      name: what summaries call it.

    Raises:
      TypeError: an argument is neither.

    >>> import jax
    >>> from jdl import nn
    >>> model = nn.chain(nn.dense(3), nn.relu, nn.dense(2))
    >>> params, state = model.init(jax.random.key(0), jax.ShapeDtypeStruct((8, 5), "float32"))
    >>> jax.tree.map(lambda leaf: leaf.shape, params)
    ({'bias': (3,), 'kernel': (5, 3)}, {}, {'bias': (2,), 'kernel': (3, 2)})
    """
    parts = tuple(as_layer(layer) for layer in layers)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        params, states = [], []
        for index, part in enumerate(parts):
            p, s = part.init(part_key(key, index), x)
            x = output_shape(part, p, s, x)
            params.append(p)
            states.append(s)
        return tuple(params), tuple(states)

    def flow(
        call: Callable[..., Any],
        params: Params,
        state: State,
        x: Any,
        *,
        key: Key | None,
        train: bool,
    ) -> tuple[Any, State]:
        after = []
        for index, (part, p, s) in enumerate(zip(parts, params, state, strict=True)):
            x, s = call(index, part, p, s, x, key=part_key(key, index), train=train)
            after.append(s)
        return x, tuple(after)

    return composed(init, flow, name, parts)


def residual(*layers: Any, shortcut: Any = None, name: str = "residual") -> Layer:
    """`y = body(x) + shortcut(x)`, where the body is `chain(*layers)`.

    Args:
      layers: the body, as in `chain`.
      shortcut: a `Layer` or function that brings `x` to the body's shape; None
        is the identity.
      name: what summaries call it.

    Raises:
      ValueError: body and shortcut differ in shape, so that the sum would broadcast.

    He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition".
    """
    parts: tuple[Layer, ...] = (chain(*layers, name="body"),)
    if shortcut is not None:
        parts += (as_layer(shortcut),)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        pairs = [part.init(part_key(key, index), x) for index, part in enumerate(parts)]
        return tuple(p for p, _ in pairs), tuple(s for _, s in pairs)

    def flow(
        call: Callable[..., Any],
        params: Params,
        state: State,
        x: Any,
        *,
        key: Key | None,
        train: bool,
    ) -> tuple[Any, State]:
        outputs, after = _each(call, parts, (x,) * len(parts), params, state, key, train)
        body, around = outputs[0], outputs[1] if len(parts) == 2 else x
        if isinstance(body, Masked):
            y = real_steps(added(body.values, around.values), body.mask)
            return Masked(y, body.mask), after
        return added(body, around), after

    @promoting
    def added(body: Any, around: Any) -> Any:
        if body.shape != around.shape:
            raise ValueError(
                f"`{name}` adds its body's output of shape {body.shape} to its shortcut's of "
                f"shape {around.shape}: give a `shortcut` that brings x to the body's shape."
            )
        return body + around

    return composed(init, flow, name, parts)


@promoting
def concatenate(*outputs: Any) -> Any:
    """The outputs side by side along their last axis; padded sequences keep the first's mask."""
    if isinstance(outputs[0], Masked):
        values = jnp.concatenate([output.values for output in outputs], axis=-1)
        return Masked(values, outputs[0].mask)
    return jnp.concatenate(outputs, axis=-1)


def parallel(
    *layers: Any, merge: Callable[..., Any] = concatenate, name: str = "parallel"
) -> Layer:
    """`y = merge(layers[0](x), layers[1](x), ...)`: each layer is given the same input.

    Args:
      layers: `Layer`s and plain functions of `x`.
      merge: a function of all outputs; by default they are concatenated along
        the last axis.
      name: what summaries call it.

    A bidirectional LSTM is `parallel(lstm(64), lstm(64, reverse=True))`.
    """
    parts = tuple(as_layer(layer) for layer in layers)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        pairs = [part.init(part_key(key, index), x) for index, part in enumerate(parts)]
        return tuple(p for p, _ in pairs), tuple(s for _, s in pairs)

    def flow(
        call: Callable[..., Any],
        params: Params,
        state: State,
        x: Any,
        *,
        key: Key | None,
        train: bool,
    ) -> tuple[Any, State]:
        outputs, after = _each(call, parts, (x,) * len(parts), params, state, key, train)
        return merge(*outputs), after

    return composed(init, flow, name, parts)


def per_step(*layers: Any) -> Layer:
    """`chain(*layers)` on the values of padded sequences; the mask passes by.

    Lets functions of one's own, which know nothing of padding, stand between
    layers that do, and must treat each step alone. An input that is no `Masked`
    is passed as it is.
    """
    parts = (chain(*layers),)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        return parts[0].init(key, x.values if isinstance(x, Masked) else x)

    def flow(
        call: Callable[..., Any],
        params: Params,
        state: State,
        x: Any,
        *,
        key: Key | None,
        train: bool,
    ) -> tuple[Any, State]:
        masked = isinstance(x, Masked)
        v = filled(x) if masked else x
        y, after = call(0, parts[0], params, state, v, key=key, train=train)
        return (Masked(real_steps(y, x.mask), x.mask) if masked else y), after

    return composed(init, flow, "per_step", parts)


def flatten(x: Any) -> Shaped[Array, "batch features"]:
    """`x` as one row of features per example, in row-major order; not of `Masked` steps.

    >>> import jax.numpy as jnp
    >>> flatten(jnp.zeros((8, 28, 28, 1))).shape
    (8, 784)
    """
    refuse_masked(x, "flatten")
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def _each(
    call: Callable[..., Any],
    parts: tuple[Layer, ...],
    inputs: tuple[Any, ...],
    params: Params,
    state: State,
    key: Key | None,
    train: bool,
) -> tuple[list[Any], State]:
    outputs, after = [], []
    for index, (part, x, p, s) in enumerate(zip(parts, inputs, params, state, strict=True)):
        y, s = call(index, part, p, s, x, key=part_key(key, index), train=train)
        outputs.append(y)
        after.append(s)
    return outputs, tuple(after)
