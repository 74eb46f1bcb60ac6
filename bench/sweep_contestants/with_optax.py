"""jax and optax: a jitted step, a jitted scan, its vmap."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from sweep_contestants.base import BATCH, CLASSES, HIDDEN, LOW, Ready, Round, arrays, permuted


class _Optax(NamedTuple):
    """The trial as a user of jax and optax writes it."""

    init: Callable[..., Any]  # (key, rate) -> parameters, optimizer's state
    step: Callable[..., Any]  # (both, indices, rate) -> both
    accuracy: Callable[..., Any]
    examples: int


def _optax() -> _Optax:
    import jax
    import jax.numpy as jnp
    import optax

    x, y, x_valid, y_valid = map(jnp.asarray, arrays())

    def init(key: Any, rate: Any) -> Any:
        keys = jax.random.split(key)
        normal = jax.nn.initializers.lecun_normal()
        params = {
            "w1": normal(keys[0], (x.shape[1], HIDDEN)),
            "b1": jnp.zeros(HIDDEN),
            "w2": normal(keys[1], (HIDDEN, CLASSES)),
            "b2": jnp.zeros(CLASSES),
        }
        return params, optax.adam(rate).init(params)

    def logits(params: Any, x: Any) -> Any:
        return jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]

    def loss(params: Any, x: Any, y: Any) -> Any:
        # One-hot labels: with integer ones, a gather, every form below is slower.
        return optax.softmax_cross_entropy(logits(params, x), jax.nn.one_hot(y, CLASSES)).mean()

    def step(carry: Any, index: Any, rate: Any) -> Any:
        params, state = carry
        grads = jax.grad(loss)(params, x[index], y[index])
        updates, state = optax.adam(rate).update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def accuracy(params: Any) -> Any:
        return jnp.mean(jnp.argmax(logits(params, x_valid), -1) == y_valid)

    return _Optax(init, step, accuracy, len(x))


def optax_step(steps: int) -> Ready:
    """A Python loop over a jitted step, one trial after another; indices drawn by NumPy."""
    import jax
    import jax.numpy as jnp

    trial = _optax()
    start = time.perf_counter()
    init = jax.jit(trial.init)
    step = jax.jit(trial.step, donate_argnums=0)
    accuracy = jax.jit(trial.accuracy)
    carry = step(init(jax.random.key(0), jnp.float32(LOW)), np.zeros(BATCH, np.int32), LOW)
    jax.block_until_ready(accuracy(carry[0]))
    compile_seconds = time.perf_counter() - start

    def turn(rates: Sequence[float]) -> Round:
        scores = []
        for number, rate in enumerate(rates):
            indices = permuted(np.random.default_rng(number), steps, trial.examples)
            rate = jnp.float32(rate)
            carry = init(jax.random.key(number), rate)
            for index in indices:
                carry = step(carry, index, rate)
            scores.append(accuracy(carry[0]))
        return Round(np.array(scores).tolist())

    return Ready(turn, compile_seconds)


def _whole_trial(steps: int, replace: bool) -> Callable[[Any, Any], Any]:
    """`(key, rate) -> accuracy`: one trial as a scan, its batches drawn inside."""
    import jax

    trial = _optax()
    per_epoch = trial.examples // BATCH

    def run(key: Any, rate: Any) -> Any:
        init_key, data_key = jax.random.split(key)
        if replace:
            indices = jax.random.randint(data_key, (steps, BATCH), 0, trial.examples)
        else:
            keys = jax.random.split(data_key, -(-steps // per_epoch))
            order = jax.vmap(lambda key: jax.random.permutation(key, trial.examples))(keys)
            indices = order[:, : per_epoch * BATCH].reshape(-1, BATCH)[:steps]
        carry, _ = jax.lax.scan(
            lambda carry, index: (trial.step(carry, index, rate), None),
            trial.init(init_key, rate),
            indices,
        )
        return trial.accuracy(carry[0])

    return run


def optax_scan(steps: int) -> Ready:
    """One jitted scan per trial, the learning rate traced."""
    import jax
    import jax.numpy as jnp

    start = time.perf_counter()
    run = jax.jit(_whole_trial(steps, False)).lower(jax.random.key(0), jnp.float32(LOW)).compile()
    compile_seconds = time.perf_counter() - start

    def turn(rates: Sequence[float]) -> Round:
        keys = list(jax.random.split(jax.random.key(0), len(rates)))
        # Dispatch does not wait, so a trial's launch hides behind the one before.
        scores = [run(key, jnp.float32(rate)) for key, rate in zip(keys, rates)]
        return Round(np.array(scores).tolist())

    return Ready(turn, compile_seconds)


def optax_vmap(steps: int, replace: bool = False, cores: int = 1) -> Ready:
    """The scan vmapped over all trials at once, on `cores` JAX devices."""
    import jax

    jax.config.update("jax_num_cpu_devices", cores)
    mesh = jax.make_mesh((cores,), ("trials",), axis_types=(jax.sharding.AxisType.Auto,))
    by_trial = jax.sharding.PartitionSpec("trials")
    sharding = jax.sharding.NamedSharding(mesh, by_trial)
    every = jax.vmap(_whole_trial(steps, replace))
    if cores > 1:
        every = jax.shard_map(
            every, mesh=mesh, in_specs=by_trial, out_specs=by_trial, check_vma=False
        )
    jitted = jax.jit(every)
    compiled: dict[int, Any] = {}

    def turn(rates: Sequence[float]) -> Round:
        keys = jax.random.split(jax.random.key(0), len(rates))
        arguments = (keys, np.asarray(rates, np.float32))
        if cores > 1:
            arguments = jax.device_put(arguments, sharding)
        compile_seconds = 0.0
        if len(rates) not in compiled:
            start = time.perf_counter()
            compiled[len(rates)] = jitted.lower(*arguments).compile()
            compile_seconds = time.perf_counter() - start
        return Round(np.asarray(compiled[len(rates)](*arguments)).tolist(), compile_seconds)

    return Ready(turn)
