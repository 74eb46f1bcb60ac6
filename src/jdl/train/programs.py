"""The compiled parts of one run: its start, its training steps, its evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jdl import tree
from jdl.engine import cache
from jdl.engine.contract import Shapes
from jdl.engine.keys import trial_keys
from jdl.engine.lane import Lanes, start_lane, step_words, train_report, train_step
from jdl.engine.trial import Batch, Metrics, adapted, evaluate_split
from jdl.engine.workload import Workload
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
    """The functions of `work`, each compiled, or found in the cache, when it is first called."""
    trial = adapted(shapes.trial({}), batch=layout.split)
    shardings = layout.of_state(shapes.lane)

    def start(root: Any) -> Lanes:
        return start_lane(trial, work.batch, trial_keys(root, 0).init)

    def resident(lane: Lanes, root: Any, train: Batch) -> tuple[Lanes, Metrics]:
        return train_report(trial, work, lane, train, trial_keys(root, 0), draws=shapes.draws)

    def streamed(
        lane: Lanes, sums: Metrics, root: Any, chunk: Batch, count: Any
    ) -> tuple[Lanes, Metrics]:
        steps = jax.tree.leaves(chunk)[0].shape[0]
        words = step_words(trial_keys(root, 0).trial, lane.step, steps)

        def body(index: Any, carry: tuple[Lanes, Metrics]) -> tuple[Lanes, Metrics]:
            lane, sums = carry
            key = jax.random.wrap_key_data(words[index], impl="threefry2x32")
            batch = jax.tree.map(lambda a: a[index], chunk)
            lane, metrics = train_step(trial, lane, batch, key, work.diverged_above)
            return lane, jax.tree.map(jnp.add, sums, metrics)

        return jax.lax.fori_loop(0, count, body, (lane, sums))

    def evaluate(state: Any, split: Batch) -> Metrics:
        return evaluate_split(trial, state, split, work.eval_batch_size)

    # Without functions and sets, which have other reprs in each process.
    facts = (
        work._replace(make=None),  # type: ignore[arg-type]
        shapes._replace(trial=None, used=None, drawn=None),  # type: ignore[arg-type]
        layout.split_state,
    )
    devices = [*layout.mesh.devices.flat]

    def kept(function: Callable[..., Any], result: Any, **options: Any) -> Callable[..., Any]:
        name = getattr(function, "__name__", "")
        return cache.kept(jax.jit(function, **options), (name, *facts), devices, result)

    told = {"train": {}, "valid": {}, "test": {}}  # type: dict[str, Metrics]
    for name, shape in (shapes.reports | shapes.final).items():
        split, metric = name.split("_", 1)
        told[split][metric] = shape
    trained = (shapes.lane, told["train"])
    batch_bytes = max(1, tree.nbytes(work.batch))
    out = (shardings, layout.everywhere)
    return Programs(
        start=kept(start, shapes.lane, out_shardings=shardings),
        resident=kept(resident, trained, donate_argnums=0, out_shardings=out),
        streamed=kept(streamed, trained, donate_argnums=(0, 1), out_shardings=out),
        evaluate=kept(evaluate, told["valid"] or told["test"]),
        copy=jax.jit(lambda t: jax.tree.map(jnp.copy, t)),
        chunk=int(np.clip(CHUNK_BYTES // batch_bytes, 1, min(CHUNK_STEPS, work.report_every))),
        shardings=shardings,
    )
