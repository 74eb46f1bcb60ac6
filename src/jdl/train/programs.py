"""The compiled parts of one run: its start, its training steps, its evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jdl import tree
from jdl.data.batches import batch_indices, take
from jdl.engine.keys import trial_keys
from jdl.engine.program import Lanes, Shapes, Workload, start_lane, train_step
from jdl.engine.trial import Batch, Metrics, evaluate_split
from jdl.train.layout import Layout

CHUNK_BYTES, CHUNK_STEPS = 2**22, 16


class Programs(NamedTuple):
    """A run's compiled functions.

    Attributes:
      start: `start(root) -> lane`.
      resident: `resident(lane, root, train) -> (lane, means)`: the steps of a
        report on batches drawn from `train`.
      streamed: `streamed(lane, sums, root, chunk, count) -> (lane, sums)`: the
        first `count` steps of a chunk.
      evaluate: `evaluate(state, split) -> metrics`.
      copy: of a tree, for what the next call will overwrite.
      chunk: batches in a chunk.
      shardings: of a lane.
    """

    start: Callable[..., Any]
    resident: Callable[..., Any]
    streamed: Callable[..., Any]
    evaluate: Callable[..., Any]
    copy: Callable[..., Any]
    chunk: int
    shardings: PyTree


def make_programs(work: Workload, shapes: Shapes, layout: Layout) -> Programs:
    """The functions of `work`, each compiled when it is first called."""
    trial = work.trial({})
    shardings = layout.of_state(shapes.lane)
    examples = jax.tree.leaves(work.train)[0].shape[0]

    def one_step(lane: Lanes, batch: Batch, words: Any) -> tuple[Lanes, Metrics]:
        key = jax.random.wrap_key_data(words, impl="threefry2x32")
        return train_step(trial, lane, layout.split(batch), key, work.diverged_above)

    def step_keys(root: Any, lane: Lanes, steps: int) -> Any:
        # As words: the key-reuse checker takes the axis of scanned typed keys for a second use.
        key = trial_keys(root, 0).trial
        numbers = lane.step + jnp.arange(steps, dtype=jnp.int32)
        return jax.vmap(lambda n: jax.random.key_data(jax.random.fold_in(key, n)))(numbers)

    def resident(lane: Lanes, root: Any, train: Batch) -> tuple[Lanes, Metrics]:
        steps = work.report_every
        drawn = batch_indices(trial_keys(root, 0).data, lane.step, steps, work.batch_size, examples)

        def body(lane: Lanes, xs: Any) -> tuple[Lanes, Metrics]:
            index, words = xs
            return one_step(lane, take(train, index), words)

        lane, metrics = jax.lax.scan(body, lane, (drawn, step_keys(root, lane, steps)))
        return lane, jax.tree.map(jnp.mean, metrics)

    def streamed(
        lane: Lanes, sums: Metrics, root: Any, chunk: Batch, count: Any
    ) -> tuple[Lanes, Metrics]:
        words = step_keys(root, lane, jax.tree.leaves(chunk)[0].shape[0])

        def body(index: Any, carry: tuple[Lanes, Metrics]) -> tuple[Lanes, Metrics]:
            lane, sums = carry
            lane, metrics = one_step(lane, jax.tree.map(lambda a: a[index], chunk), words[index])
            return lane, jax.tree.map(jnp.add, sums, metrics)

        return jax.lax.fori_loop(0, count, body, (lane, sums))

    def evaluate(state: Any, split: Batch) -> Metrics:
        spread = trial._replace(
            evaluate=lambda state, batch: trial.evaluate(state, layout.split(batch))
        )
        return evaluate_split(spread, state, split, work.eval_batch_size)

    batch_bytes = max(1, tree.nbytes(work.batch_like()))
    out = (shardings, layout.everywhere)
    return Programs(
        start=jax.jit(lambda root: start_lane(work, {}, root, 0), out_shardings=shardings),
        resident=jax.jit(resident, donate_argnums=0, out_shardings=out),
        streamed=jax.jit(streamed, donate_argnums=(0, 1), out_shardings=out),
        evaluate=jax.jit(evaluate),
        copy=jax.jit(lambda t: jax.tree.map(jnp.copy, t)),
        chunk=int(np.clip(CHUNK_BYTES // batch_bytes, 1, min(CHUNK_STEPS, work.report_every))),
        shardings=shardings,
    )
