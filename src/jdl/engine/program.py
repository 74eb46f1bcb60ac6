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

from jdl import tree
from jdl.data.batches import batch_indices, take
from jdl.data.dataset import Dataset
from jdl.engine.keys import to_keys, to_words, trial_keys
from jdl.engine.specification import trace_hash
from jdl.engine.trial import Batch, Metrics, State, Trial, bound, evaluate_split

Numbers = dict[str, Any]


class Lanes(NamedTuple):
    """What lives on the devices between segments; every leaf has a leading lane axis."""

    state: State  # the trial's own, at its last finite step, keys as words
    step: Int[Array, " lanes"]  # steps taken
    diverged: Int[Array, " lanes"]  # the step that failed, -1 while none has
    first_loss: Array  # loss at step 0, which growth is measured against


class Assignment(NamedTuple):
    """What the host decides before a segment."""

    numbers: Numbers  # the traced hyperparameters of each lane's trial
    stream: UInt32[Any, " lanes"]  # numbers the trial's random stream
    fresh: Bool[Any, " lanes"]  # the lane starts its trial in this segment
    finishing: Bool[Any, " lanes"]  # the lane ends its trial with this segment


class Workload(NamedTuple):
    """What a group of trials runs: the static side of a lane program."""

    make: Callable[[Numbers], Trial]
    train: Batch
    valid: Batch | None
    test: Batch | None
    batch_size: int
    report_every: int  # steps
    reports: int  # in a whole trial
    eval_batch_size: int
    diverged_above: float  # in multiples of the first loss

    @property
    def steps(self) -> int:
        """The steps of a whole trial."""
        return self.report_every * self.reports

    @property
    def data(self) -> dict[str, Batch]:
        """The splits that are there, by name."""
        splits = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    def batch_like(self) -> Batch:
        """The shapes and dtypes of a training batch."""
        return jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((self.batch_size, *a.shape[1:]), a.dtype), self.train
        )

    def trial(self, numbers: Numbers) -> Trial:
        """The trial of the given numbers, bound to the shape of a batch, its state in words."""
        trial = bound(self.make(numbers), self.batch_like())

        def step(state: State, batch: Batch, key: Any) -> tuple[State, Metrics]:
            state, metrics = trial.step(to_keys(state), batch, key)
            return to_words(state), metrics

        return Trial(
            init=lambda key: to_words(trial.init(key)),
            step=step,
            evaluate=lambda state, batch: trial.evaluate(to_keys(state), batch),
        )


class Shapes(NamedTuple):
    """What tracing alone tells of a lane: shapes and dtypes, and what it computes."""

    lane: Lanes
    reports: Metrics
    final: Metrics
    program: str  # a hash of the traced computation, its constants included
    used: frozenset[str]  # the names of the numbers that anything depends on


def trace_shapes(work: Workload, numbers: Numbers) -> Shapes:
    """Traces one lane with `numbers` and checks that the trial keeps its contract.

    Raises:
      TypeError: `step` gives back a state of another structure, shape or dtype
        than `init`, or `step` or `evaluate` gives metrics that are no dict of
        scalars.
    """
    init, lane = jax.make_jaxpr(lambda n: start_lane(work, n, 0, 0), return_shape=True)(numbers)
    after, metrics = jax.eval_shape(
        lambda n, state, batch: work.trial(n).step(state, batch, trial_keys(0, 0).trial),
        numbers,
        lane.state,
        work.batch_like(),
    )
    _check_same_state(lane.state, after)
    _check_metrics("step", metrics)
    for split in work.data.values():
        metrics = jax.eval_shape(
            lambda n, state, batch: work.trial(n).evaluate(state, batch), numbers, lane.state, split
        )
        _check_metrics("evaluate", metrics)
    traced, (reports, final) = jax.make_jaxpr(
        lambda data, n, lane: (_report(work, data, n, 0, lane, 0)[1], _final(work, data, n, lane)),
        return_shape=True,
    )(work.data, numbers, lane)
    before = len(jax.tree.leaves(work.data))
    places = {*_used(init), *(place - before for place in _used(traced))}
    used = frozenset(name for place, name in enumerate(sorted(numbers)) if place in places)
    return Shapes(lane, reports, final, trace_hash(traced), used)


def _used(traced: Any) -> list[int]:
    """The places of the inputs that anything depends on."""
    known = {id(v) for eqn in traced.eqns for v in eqn.invars}
    known |= {id(v) for v in traced.jaxpr.outvars}
    return [place for place, v in enumerate(traced.jaxpr.invars) if id(v) in known]


def check_data(trial: Trial, work: Workload) -> None:
    """Lets a trial that knows what its data must be look at them, and raise."""
    trial = bound(trial, work.batch_like())
    if trial.check is not None:
        trial.check(Dataset(work.train, work.valid, work.test))


def _check_same_state(before: State, after: State) -> None:
    shapes = [
        {path: (leaf.shape, str(leaf.dtype)) for path, leaf in tree.named_leaves(t).items()}
        for t in (before, after)
    ]
    same = jax.tree.structure(before) == jax.tree.structure(after)  # type: ignore[operator]
    if not same or shapes[0] != shapes[1]:
        changed = sorted(
            path for path in {*shapes[0], *shapes[1]} if shapes[0].get(path) != shapes[1].get(path)
        )
        lines = [f"  {p}: {shapes[0].get(p)} at init, {shapes[1].get(p)} after" for p in changed]
        raise TypeError(
            "Trial.step must give back a state of the same structure, shapes and dtypes as "
            "Trial.init makes, but they differ in\n" + ("\n".join(lines) or f"{before}\n{after}")
        )


def _check_metrics(where: str, metrics: Any) -> None:
    scalars = isinstance(metrics, dict) and all(
        getattr(m, "shape", None) == () for m in metrics.values()
    )
    if not scalars or not metrics:
        raise TypeError(
            f"Trial.{where} must give metrics as a dict of at least one scalar, got "
            f"{jax.tree.map(lambda m: getattr(m, 'shape', m), metrics)}."
        )


def start_lane(work: Workload, numbers: Numbers, root: Any, stream: Any) -> Lanes:
    """A lane at step 0 of the trial of `numbers`."""
    state = work.trial(numbers).init(trial_keys(root, stream).init)
    return Lanes(state, jnp.int32(0), jnp.int32(-1), jnp.float32(jnp.nan))


def train_step(
    trial: Trial, lane: Lanes, batch: Batch, key: Any, diverged_above: float
) -> tuple[Lanes, Metrics]:
    """One training step of a lane, which stays at its last finite state once it has diverged.

    Args:
      trial: as `Workload.trial` gives it.
      lane: before the step.
      batch: of examples.
      key: of the step.
      diverged_above: the loss, in multiples of the first, that counts as divergence.

    Returns:
      The lane after the step, and the step's metrics, NaN where it has diverged.
    """
    state, metrics = trial.step(lane.state, batch, key)
    metrics = {name: jnp.asarray(m, jnp.float32) for name, m in metrics.items()}
    finite = jnp.stack([jnp.isfinite(m) for m in metrics.values()]).all()
    first = lane.first_loss
    if "loss" in metrics:
        loss = metrics["loss"]
        first = jnp.where(lane.step == 0, loss, first)
        finite &= loss <= diverged_above * jnp.maximum(jnp.abs(first), 1.0)
    ok = finite & (lane.diverged < 0)
    lane = Lanes(
        # A select, fused into the update: the last finite state stays.
        state=tree.where(ok, state, lane.state),
        step=jnp.where(ok, lane.step + 1, lane.step),
        diverged=jnp.where(ok | (lane.diverged >= 0), lane.diverged, lane.step),
        first_loss=first,
    )
    return lane, jax.tree.map(lambda m: jnp.where(ok, m, jnp.nan), metrics)


def _report(
    work: Workload,
    data: dict[str, Batch],
    numbers: Numbers,
    root: Any,
    lane: Lanes,
    stream: Any,
    unroll: int = 1,
) -> tuple[Lanes, Metrics]:
    """Trains one lane for `report_every` steps and evaluates it: its metrics by name."""
    trial = work.trial(numbers)
    keys = trial_keys(root, stream)
    steps = lane.step + jnp.arange(work.report_every, dtype=jnp.int32)
    examples = jax.tree.leaves(work.train)[0].shape[0]
    # Indices and keys of all steps at once: inside the scan each would be a kernel
    # of its own (an MLP 64-32-10 at 8 lanes: 6.3 us a trial-step against 4.6).
    indices = batch_indices(keys.data, lane.step, work.report_every, work.batch_size, examples)
    # As words, because the key-reuse checker takes the axis that vmap moves in
    # scanned typed keys for a second use.
    step_keys = jax.vmap(lambda step: jax.random.key_data(jax.random.fold_in(keys.trial, step)))(
        steps
    )

    def step(lane: Lanes, xs: tuple[Array, Array]) -> tuple[Lanes, Metrics]:
        index, words = xs
        key = jax.random.wrap_key_data(words, impl="threefry2x32")
        return train_step(trial, lane, take(data["train"], index), key, work.diverged_above)

    lane, metrics = jax.lax.scan(step, lane, (indices, step_keys), unroll=unroll)
    reports = {f"train_{name}": jnp.mean(m) for name, m in metrics.items()}
    if "valid" in data:
        means = evaluate_split(trial, lane.state, data["valid"], work.eval_batch_size)
        failed = lane.diverged >= 0
        reports |= {f"valid_{n}": jnp.where(failed, jnp.nan, m) for n, m in means.items()}
    return lane, reports


def _final(work: Workload, data: dict[str, Batch], numbers: Numbers, lane: Lanes) -> Metrics:
    """The test metrics of one lane, NaN if its trial diverged."""
    if "test" not in data:
        return {}
    means = evaluate_split(work.trial(numbers), lane.state, data["test"], work.eval_batch_size)
    return {f"test_{n}": jnp.where(lane.diverged >= 0, jnp.nan, m) for n, m in means.items()}


class Outcome(NamedTuple):
    """What the host sees of a segment, packed into three arrays: each costs a transfer."""

    reports: Float[Array, "lanes reports metrics"]  # names sorted; the first `count` are filled
    final: Float[Array, "lanes metrics"]  # names sorted; NaN unless a lane was finishing
    progress: Int[Array, "lanes 2"]  # step, and the step that failed or -1


class LaneProgram(NamedTuple):
    """A compiled segment and what is needed to call it."""

    run: Callable[..., tuple[Lanes, Outcome]]  # (lanes, assignment, root, count, data)
    shapes: Shapes
    width: int  # lanes, over all devices
    sharding: NamedSharding  # of whatever has a lane axis
    replicated: NamedSharding
    compile_seconds: float
    memory: Any  # the compiler's own account, or None

    def empty(self) -> Lanes:
        """Lanes that hold nothing yet."""
        return self.place(
            jax.tree.map(lambda a: np.zeros((self.width, *a.shape), a.dtype), self.shapes.lane)
        )

    def place(self, lanes: Any) -> Any:
        """Copies host arrays with a lane axis onto the devices."""
        # One CPU device would share a host array's memory, and the host writes in its arrays.
        return jax.device_put(lanes, self.sharding, may_alias=False)


def _pack(metrics: Metrics, lanes: int) -> Array:
    columns = [metrics[name].astype(jnp.float32) for name in sorted(metrics)]
    return jnp.stack(columns, axis=1) if columns else jnp.zeros((lanes, 0))


def compile_lanes(
    work: Workload, numbers: Numbers, mesh: Mesh, lanes_per_device: int, unroll: int
) -> LaneProgram:
    """Compiles the segment of `work` for `lanes_per_device` lanes on each device of `mesh`.

    Args:
      work: what the trials of the group run.
      numbers: an example of the numbers of one lane; only dtypes matter.
      mesh: one axis, called "lanes".
      lanes_per_device: lanes that one device runs under `vmap`.
      unroll: training steps per iteration of the compiled loop.
    """
    shapes = trace_shapes(work, numbers)

    def segment(
        lanes: Lanes, assign: Assignment, root: Any, count: Any, data: dict[str, Batch]
    ) -> tuple[Lanes, Outcome]:
        def refill(lanes: Lanes) -> Lanes:
            def one(old: Lanes, numbers: Numbers, stream: Any, fresh: Any) -> Lanes:
                return tree.where(fresh, start_lane(work, numbers, root, stream), old)

            return jax.vmap(one)(lanes, assign.numbers, assign.stream, assign.fresh)

        lanes = jax.lax.cond(jnp.any(assign.fresh), refill, lambda lanes: lanes, lanes)

        def one_report(lane: Lanes, numbers: Numbers, stream: Any) -> tuple[Lanes, Metrics]:
            return _report(work, data, numbers, root, lane, stream, unroll)

        def body(index: Any, carry: tuple[Lanes, Array]) -> tuple[Lanes, Array]:
            lanes, reports = carry
            lanes, new = jax.vmap(one_report)(lanes, assign.numbers, assign.stream)
            return lanes, reports.at[:, index].set(_pack(new, lanes_per_device))

        reports = jnp.full((lanes_per_device, work.reports, len(shapes.reports)), jnp.nan)
        # The number of reports is an argument: the host lengthens segments
        # that are over too soon without another compilation.
        lanes, reports = jax.lax.fori_loop(0, count, body, (lanes, reports))

        def evaluate_test() -> Array:
            final = jax.vmap(lambda n, lane: _final(work, data, n, lane))(assign.numbers, lanes)
            return _pack(final, lanes_per_device)

        final = jax.lax.cond(
            jnp.any(assign.finishing),
            evaluate_test,
            lambda: jnp.full((lanes_per_device, len(shapes.final)), jnp.nan),
        )
        progress = jnp.stack([lanes.step, lanes.diverged], axis=1)
        return lanes, Outcome(reports, final, progress)

    by_lane, everywhere = P("lanes"), P()
    sharding, replicated = NamedSharding(mesh, by_lane), NamedSharding(mesh, everywhere)
    width = lanes_per_device * mesh.size
    mapped = jax.shard_map(
        segment,
        mesh=mesh,
        in_specs=(by_lane, by_lane, everywhere, everywhere, everywhere),
        out_specs=by_lane,
        check_vma=False,
    )

    def like(shape: Any, of: NamedSharding, lead: tuple[int, ...] = ()) -> Any:
        return jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((*lead, *a.shape), a.dtype, sharding=of), shape
        )

    lane_flag = jax.ShapeDtypeStruct((width,), np.bool_, sharding=sharding)
    start = time.perf_counter()
    compiled = (
        jax.jit(mapped, donate_argnums=0)
        .lower(
            like(shapes.lane, sharding, (width,)),
            Assignment(
                numbers={
                    name: jax.ShapeDtypeStruct((width,), np.asarray(n).dtype, sharding=sharding)
                    for name, n in numbers.items()
                },
                stream=jax.ShapeDtypeStruct((width,), np.uint32, sharding=sharding),
                fresh=lane_flag,
                finishing=lane_flag,
            ),
            jax.ShapeDtypeStruct((), np.uint32, sharding=replicated),
            jax.ShapeDtypeStruct((), np.int32, sharding=replicated),
            like(work.data, replicated),
        )
        .compile()
    )
    return LaneProgram(
        run=compiled,
        shapes=shapes,
        width=width,
        sharding=sharding,
        replicated=replicated,
        compile_seconds=time.perf_counter() - start,
        memory=compiled.memory_analysis(),
    )
