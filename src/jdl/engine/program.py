"""The lane program: one compiled segment that refills, trains and evaluates a row of lanes.

A group of trials that differ only in numbers shares one such program. Every
lane holds one trial; a lane whose trial has ended takes the next one at the
start of a segment, in the same executable.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, UInt32

from jdl._host import put_copy
from jdl.engine import cache
from jdl.engine.contract import Shapes
from jdl.engine.keys import Keys, keys_of
from jdl.engine.lane import EMPTY, Lanes, evaluate_lane, train_report
from jdl.engine.starting import Refill, compile_refill
from jdl.engine.trial import Batch, Metrics
from jdl.engine.workload import Numbers, Workload


class Assignment(NamedTuple):
    """What the host decides before a segment."""

    numbers: Numbers  # the traced hyperparameters of each lane's trial
    keys: UInt32[Any, "lanes 3 2"]  # of each lane's trial, as `trial_words` gives them
    fresh: Bool[Any, " lanes"]  # the lane starts its trial in this segment
    finishing: Bool[Any, " lanes"]  # the lane ends its trial with this segment


class Outcome(NamedTuple):
    """What the host sees of a segment, in only three arrays because each costs a transfer."""

    # What nothing was measured for is 0, not NaN, which jax_debug_nans would take for a failure.
    reports: Float[Array, "lanes reports metrics"]  # names sorted; the first `count` are filled
    final: Float[Array, "lanes metrics"]  # names sorted; filled if any lane was finishing
    progress: Int[Array, "lanes 2"]  # step, and the step that failed or -1


class LaneProgram(NamedTuple):
    """A compiled segment and what is needed to call it."""

    segment: Callable[..., tuple[Lanes, Outcome]]  # (lanes, assignment, count, data)
    refill: Refill
    shapes: Shapes
    width: int  # lanes, over all devices
    sharding: NamedSharding  # of arrays with a lane axis
    replicated: NamedSharding
    compile_seconds: float
    found: bool  # in the cache, so that nothing was compiled
    memory: Any  # the compiler's figures of the segment, or None

    def run(
        self, lanes: Lanes, assignment: Assignment, count: Any, data: Any, fresh: bool
    ) -> tuple[Lanes, Outcome]:
        """Starts the trials of fresh lanes, if any is `fresh`, and runs a segment."""
        if fresh:
            lanes = self.refill(lanes, assignment)
        return self.segment(lanes, assignment, count, data)

    def empty(self) -> Lanes:
        """Lanes that hold nothing yet."""
        lanes = jax.tree.map(lambda a: np.zeros((self.width, *a.shape), a.dtype), self.shapes.lane)
        return self.place(lanes._replace(diverged=np.full(self.width, EMPTY, np.int32)))

    def place(self, lanes: Any) -> Any:
        """Copies host arrays with a lane axis onto the devices."""
        return put_copy(lanes, self.sharding)


def _named(split: str, metrics: Metrics) -> Metrics:
    return {f"{split}_{name}": m for name, m in metrics.items()}


def _pack(metrics: Metrics, lanes: Lanes) -> Float[Array, "lanes metrics"]:
    """The metrics by sorted name, 0 in lanes without a trial."""
    if not metrics:
        return jnp.zeros((len(lanes.step), 0), jnp.float32)
    columns = [metrics[name].astype(jnp.float32) for name in sorted(metrics)]
    return jnp.where(lanes.diverged[:, None] == EMPTY, 0, jnp.stack(columns, axis=1))


def lane_segment(
    work: Workload, shapes: Shapes, mesh: Mesh, lanes_per_device: int, unroll: int
) -> tuple[Any, tuple[Any, ...]]:
    """The segment of `work` under `jax.jit`, and the shapes of its arguments.

    Args:
      work: what the trials of the group run.
      shapes: the trace of one lane; the trial's own functions do not run again.
      mesh: one axis, called "lanes".
      lanes_per_device: lanes that one device runs under `vmap`.
      unroll: training steps per iteration of the compiled loop.
    """

    def segment(
        lanes: Lanes, assign: Assignment, count: Any, data: dict[str, Batch]
    ) -> tuple[Lanes, Outcome]:
        keys = jax.vmap(keys_of)(assign.keys)

        def evaluated(split: str, numbers: Numbers, lane: Lanes) -> Metrics:
            if split not in data:
                return {}
            trial, size = shapes.trial(numbers), work.eval_batch_size
            return _named(split, evaluate_lane(trial, lane, data[split], size))

        def one_report(lane: Lanes, numbers: Numbers, keys: Keys) -> tuple[Lanes, Metrics]:
            trial, train = shapes.trial(numbers), data["train"]
            lane, means = train_report(trial, work, lane, train, keys, unroll, shapes.draws)
            return lane, _named("train", means) | evaluated("valid", numbers, lane)

        def body(index: Any, carry: tuple[Lanes, Array]) -> tuple[Lanes, Array]:
            lanes, reports = carry
            lanes, new = jax.vmap(one_report)(lanes, assign.numbers, keys)
            return lanes, reports.at[:, index].set(_pack(new, lanes))

        size = (lanes_per_device, work.reports, len(shapes.reports))
        # The number of reports is an argument, so the host lengthens short
        # segments without another compilation.
        lanes, reports = jax.lax.fori_loop(0, count, body, (lanes, jnp.zeros(size, jnp.float32)))

        def evaluate_test() -> Array:
            final = jax.vmap(lambda n, lane: evaluated("test", n, lane))(assign.numbers, lanes)
            return _pack(final, lanes)

        final = jax.lax.cond(
            jnp.any(assign.finishing),
            evaluate_test,
            lambda: jnp.zeros((lanes_per_device, len(shapes.final)), jnp.float32),
        )
        progress = jnp.stack([lanes.step, lanes.diverged], axis=1)
        return lanes, Outcome(reports, final, progress)

    by_lane, everywhere = P("lanes"), P()
    mapped = jax.shard_map(
        segment,
        mesh=mesh,
        in_specs=(by_lane, by_lane, everywhere, everywhere),
        out_specs=by_lane,
        check_vma=False,
    )

    sharding, replicated = NamedSharding(mesh, by_lane), NamedSharding(mesh, everywhere)
    width = lanes_per_device * mesh.size

    def like(shape: Any, of: NamedSharding, lead: tuple[int, ...] = ()) -> Any:
        return jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((*lead, *a.shape), a.dtype, sharding=of), shape
        )

    lane_flag = jax.ShapeDtypeStruct((width,), np.bool_, sharding=sharding)
    arguments = (
        like(shapes.lane, sharding, (width,)),
        Assignment(
            numbers=like(shapes.numbers, sharding, (width,)),
            keys=jax.ShapeDtypeStruct((width, 3, 2), np.uint32, sharding=sharding),
            fresh=lane_flag,
            finishing=lane_flag,
        ),
        jax.ShapeDtypeStruct((), np.int32, sharding=replicated),
        like(work.splits, replicated),
    )
    return jax.jit(mapped, donate_argnums=0), arguments


def compile_lanes(
    work: Workload, shapes: Shapes, mesh: Mesh, lanes_per_device: int, unroll: int
) -> LaneProgram:
    """Compiles the segment of `work`, or finds it in the cache; arguments as `lane_segment`."""
    start = time.perf_counter()
    segment, arguments = lane_segment(work, shapes, mesh, lanes_per_device, unroll)
    result = (shapes.lane, Outcome(0, 0, 0))  # type: ignore[arg-type]
    # Without functions and sets, which have other reprs in each process.
    facts = (
        work._replace(make=None),  # type: ignore[arg-type]
        shapes._replace(trial=None, used=None, drawn=None),  # type: ignore[arg-type]
        lanes_per_device,
        unroll,
    )
    compiled, found = cache.compiled(
        facts,
        [*mesh.devices.flat],
        (jax.tree.structure((arguments, {})), jax.tree.structure(result)),
        lambda: segment.lower(*arguments).compile(),
    )
    refill = compile_refill(work, shapes.drawn, shapes.program, shapes.trial, arguments[:2], mesh)
    return LaneProgram(
        segment=compiled,
        refill=refill,
        shapes=shapes,
        width=lanes_per_device * mesh.size,
        sharding=NamedSharding(mesh, P("lanes")),
        replicated=NamedSharding(mesh, P()),
        compile_seconds=time.perf_counter() - start,
        found=found,
        memory=compiled.memory_analysis(),
    )
