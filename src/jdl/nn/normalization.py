"""Normalisation: batch norm with explicit running statistics; layer, group and RMS norm."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jdl import _checks, tree
from jdl._promotion import promoting
from jdl.nn.base import (
    Key,
    Layer,
    Masked,
    Number,
    Params,
    State,
    as_floating,
    over_features,
    parameter_dtype,
)
from jdl.nn.masking import filled, on_steps, real_steps, refuse_masked


def batch_norm(
    *,
    momentum: Number = 0.1,
    eps: Number = 1e-5,
    unbiased: bool = True,
    use_scale: bool = True,
    use_bias: bool = True,
    axis_name: Any = None,
) -> Layer:
    """Normalises each feature over the batch: `y = scale * (x - mean)/sqrt(var + eps) + bias`.

    In training, `mean` and the biased `var` are those of the batch (over all
    axes but the last), and the running statistics in the state move:

        running = (1 - momentum) * running + momentum * batch

    In evaluation they are the running ones, and the state stays. Stand it after
    a dense or convolutional layer and before the nonlinearity. Scale is the
    learned standard deviation (not variance), bias the learned mean.

    Args:
      momentum: the weight of the newest batch, in [0, 1], as in torch (elsewhere
        it is the weight of the past); 0 freezes the running statistics.
      eps: added to the variance, in [0, inf).
      unbiased: whether the running variance averages the unbiased variance,
        `n/(n-1)` times the one that normalises, as in torch.
      use_scale: whether the layer has a scale.
      use_bias: whether it has a bias.
      axis_name: a mapped axis (or several) of devices over which the batch is
        split: statistics are then those of the whole batch. None: of this batch
        alone, whatever else is mapped, so that trials under vmap do not mix.

    Returns:
      A layer with parameters `{"scale", "bias"}` and state `{"mean", "var"}`,
      starting at 0 and 1. Statistics are computed and kept in float32 or wider;
      of `Masked` steps, those of the real ones.

    Raises:
      ValueError: a number is outside its range; in training, a feature has a
        single value, whose variance says nothing.

    Ioffe, Szegedy 2015, "Batch normalization".
    """
    _checks.check_number("momentum", momentum, "[0, 1]")
    _checks.check_number("eps", eps, "[0, inf)")

    @promoting
    def init(key: Key, x: Any) -> tuple[Params, State]:
        x = x.values if isinstance(x, Masked) else x
        shape, dtype = x.shape[-1:], parameter_dtype(x)
        state = {"mean": jnp.zeros(shape, dtype), "var": jnp.ones(shape, dtype)}
        return _scale_and_bias(shape, dtype, use_scale, use_bias), state

    @promoting
    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        mask = x.mask if isinstance(x, Masked) else None
        x = as_floating(x if mask is None else filled(x))
        wide = x.astype(parameter_dtype(x))
        if not train:
            mean, var = state["mean"], state["var"]
        else:
            size: Any = x.size // x.shape[-1]
            if axis_name is not None:
                size *= jax.lax.axis_size(axis_name)
            if size < 2:
                raise ValueError(
                    "batch_norm needs more than one value per feature in training, "
                    f"got x of shape {x.shape}."
                )
            if mask is not None:
                size = jnp.clip(_summed(jnp.sum(mask, dtype=wide.dtype), axis_name), min=2)
            mean, var = _moments(wide, mask, size, axis_name)
            spread = var * (size / (size - 1)) if unbiased else var
            # `recompute_batch_stats` gives the state a momentum of its own.
            weight = state.get("momentum", momentum)
            state = state | {
                "mean": _towards(state["mean"], mean, weight),
                "var": _towards(state["var"], spread, weight),
            }
        y = _normalise(wide, mean, var, eps, params).astype(x.dtype)
        return (y if mask is None else Masked(real_steps(y, mask), mask)), state

    return Layer(init, apply, "batch_norm")


def layer_norm(*, eps: Number = 1e-5, use_scale: bool = True, use_bias: bool = True) -> Layer:
    """`y = scale * (x - mean)/sqrt(var + eps) + bias` over the features of each position.

    Args:
      eps: added to the biased variance, in [0, inf).
      use_scale: whether the layer has a scale.
      use_bias: whether it has a bias.

    Returns:
      A layer with parameters `{"scale", "bias"}`; the same in training and evaluation.

    Ba, Kiros, Hinton 2016.
    """
    _checks.check_number("eps", eps, "[0, inf)")

    @promoting
    def init(key: Key, x: Any) -> tuple[Params, State]:
        return _scale_and_bias(x.shape[-1:], parameter_dtype(x), use_scale, use_bias), {}

    @promoting
    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        x = as_floating(x)
        wide = x.astype(parameter_dtype(x))
        y = _standardised(wide, (-1,), eps)
        return _scaled(y, params).astype(x.dtype), state

    return on_steps(Layer(init, apply, "layer_norm"))


def group_norm(
    groups: _checks.Count, *, eps: Number = 1e-5, use_scale: bool = True, use_bias: bool = True
) -> Layer:
    """As layer norm, over each group of features and all positions of an example together.

    Not of `Masked` steps.

    Args:
      groups: how many equal runs the features are cut into; 1 normalises an
        example whole, as many as there are features each on its own (instance norm).
      eps: added to the biased variance, in [0, inf).
      use_scale: whether the layer has a scale, one per feature.
      use_bias: whether it has a bias, one per feature.

    Returns:
      A layer with parameters `{"scale", "bias"}`; the same in training and evaluation.

    Raises:
      ValueError: at init, the features cannot be cut into `groups`.

    Wu, He 2018.
    """
    groups = _checks.check_count("groups", groups)
    _checks.check_number("eps", eps, "[0, inf)")

    @promoting
    def init(key: Key, x: Any) -> tuple[Params, State]:
        refuse_masked(x, "group_norm")
        if x.shape[-1] % groups:
            raise ValueError(
                f"`groups` must divide the number of features {x.shape[-1]}, got groups={groups}."
            )
        return _scale_and_bias(x.shape[-1:], parameter_dtype(x), use_scale, use_bias), {}

    @promoting
    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        x = as_floating(x)
        wide = x.astype(parameter_dtype(x))
        cut = wide.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
        y = _standardised(cut, (*range(1, x.ndim - 1), -1), eps).reshape(x.shape)
        return _scaled(y, params).astype(x.dtype), state

    return Layer(init, apply, "group_norm")


def rms_norm(*, eps: Number = 1e-6, use_scale: bool = True) -> Layer:
    """`y = scale * x / sqrt(mean(x**2) + eps)` over the features of each position.

    Args:
      eps: in [0, inf). torch's default is the machine epsilon of the dtype.
      use_scale: whether the layer has a scale.

    Returns:
      A layer with parameters `{"scale"}`; the same in training and evaluation.

    Zhang, Sennrich 2019.
    """
    _checks.check_number("eps", eps, "[0, inf)")

    @promoting
    def init(key: Key, x: Any) -> tuple[Params, State]:
        return _scale_and_bias(x.shape[-1:], parameter_dtype(x), use_scale, False), {}

    @promoting
    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        x = as_floating(x)
        wide = x.astype(parameter_dtype(x))
        y = wide * tree.reciprocal_root(jnp.mean(jnp.square(wide), -1, keepdims=True) + eps)
        return _scaled(y, params).astype(x.dtype), state

    return on_steps(Layer(init, apply, "rms_norm"))


def _standardised(x: Any, axes: tuple[int, ...], eps: Number) -> Any:
    centred = x - jnp.mean(x, axes, keepdims=True)
    return centred * tree.reciprocal_root(jnp.mean(jnp.square(centred), axes, keepdims=True) + eps)


def _scaled(y: Any, params: Params) -> Any:
    if "scale" in params:
        y = y * over_features(params["scale"], y)
    return y + over_features(params["bias"], y) if "bias" in params else y


def _scale_and_bias(shape: Any, dtype: Any, use_scale: bool, use_bias: bool) -> Params:
    params = {}
    if use_scale:
        params["scale"] = jnp.ones(shape, dtype)
    if use_bias:
        params["bias"] = jnp.zeros(shape, dtype)
    return params


def _moments(x: Any, mask: Any, size: Any, axis_name: Any) -> tuple[Any, Any]:
    """Mean and biased variance of values that a constant has centred.

    The constant is the mean itself, so that nothing is lost in rounding; that no
    gradient flows through it leaves the gradient one pass over the values that
    adds up two sums, where that of `mean((x - mean(x))**2)` takes four.
    """
    axes = tuple(range(x.ndim - 1))

    def average(values: Any) -> Any:
        values = values if mask is None else real_steps(values, mask)
        return _summed(jnp.sum(values, axes), axis_name) / size

    centre = jax.lax.stop_gradient(average(x))
    centred = x - over_features(centre, x)
    rest = average(centred)
    return centre + rest, average(jnp.square(centred)) - jnp.square(rest)


def _summed(statistic: Any, axis_name: Any) -> Any:
    return statistic if axis_name is None else jax.lax.psum(statistic, axis_name)


def _towards(old: Any, new: Any, weight: Number) -> Any:
    return ((1 - weight) * old + weight * new).astype(old.dtype)


def _normalise(x: Any, mean: Any, var: Any, eps: Number, params: Params) -> Any:
    factor = tree.reciprocal_root(var + eps)
    if "scale" in params:
        factor = factor * params["scale"]
    # One multiplication and one addition a value, with nothing to keep for the gradient but x.
    shift = -mean * factor
    if "bias" in params:
        shift = shift + params["bias"]
    return x * over_features(factor, x) + over_features(shift, x)
