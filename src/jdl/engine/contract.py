"""Traces a trial once to check its contract and to get shapes, program and fingerprints."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jdl import tree
from jdl.data.dataset import Dataset
from jdl.engine.keys import trial_keys
from jdl.engine.lane import Lanes, start_lane
from jdl.engine.products import product_bytes
from jdl.engine.starting import Drawn, drawn_by
from jdl.engine.trial import Batch, Metrics, State, Trial, evaluated_sizes
from jdl.engine.workload import Numbers, Workload, shapes_of


class Shapes(NamedTuple):
    """What one trace says about a lane: shapes, dtypes and its computation."""

    numbers: Numbers
    lane: Lanes
    reports: Metrics
    final: Metrics
    program: str  # a hash of the traced computation, its constants included
    used: frozenset[str]  # names of the numbers that affect anything
    draws: bool  # whether a step uses its key
    written: int  # bytes that the products of a step write
    drawn: Drawn  # what of a new state its key decides
    # Makes a trial from the traces, without running the user's functions again.
    trial: Callable[[Numbers], Trial]


class _Traced(NamedTuple):
    """A traced function, callable like the original."""

    program: core.ClosedJaxpr
    out: Any  # shapes of its result

    def __call__(self, *args: Any) -> Any:
        flat = core.jaxpr_as_fun(self.program)(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(self.out), flat)


def _trace(function: Callable[..., Any], *like: Any) -> _Traced:
    program, out = jax.make_jaxpr(function, return_shape=True)(*like)
    return _Traced(program, shapes_of(out))


def trace_shapes(work: Workload, numbers: Numbers) -> Shapes:
    """Traces one lane with `numbers` and checks that the trial keeps its contract.

    The trial's `init` and `step` run once, `evaluate` once for each shape of batch.

    Args:
      work: what the trial runs.
      numbers: those of one lane; only dtypes matter.

    Raises:
      TypeError: `step` returns a state of another structure, shape or dtype than
        `init`, or `step` or `evaluate` returns metrics that are not a dict of
        scalars.
    """
    numbers = shapes_of({name: np.asarray(n) for name, n in numbers.items()})
    key = jax.eval_shape(lambda: trial_keys(0, 0).trial)
    init = _trace(lambda n, key: work.trial(n).init(key, work.batch), numbers, key)
    step = _trace(lambda n, *args: work.trial(n).step(*args), numbers, init.out, work.batch, key)
    after, metrics = step.out
    _check_same_state(init.out, after)
    _check_metrics("step", metrics)
    reports = {f"train_{name}": jax.ShapeDtypeStruct((), jnp.float32) for name in metrics}
    final: Metrics = {}
    evaluated: dict[Any, _Traced] = {}
    for split, told in (("valid", reports), ("test", final)):
        for batch in _evaluated_batches(work, split):
            if (form := _form(batch)) not in evaluated:
                evaluated[form] = _trace(
                    lambda n, *args: work.trial(n).evaluate(*args), numbers, init.out, batch
                )
                _check_metrics("evaluate", evaluated[form].out)
            told.update({f"{split}_{name}": m for name, m in evaluated[form].out.items()})

    def trial(numbers: Numbers) -> Trial:
        return Trial(
            init=lambda key, batch: init(numbers, key),
            step=lambda state, batch, key: step(numbers, state, batch, key),
            evaluate=lambda state, batch: evaluated[_form(batch)](numbers, state, batch),
        )

    lane = jax.eval_shape(lambda n, key: start_lane(trial(n), work.batch, key), numbers, key)
    drawn = drawn_by(init.program, sorted(numbers))
    programs = [traced.program for traced in (init, step, *evaluated.values())]
    places = {place for program in programs for place in _used(program)}
    used = frozenset(name for place, name in enumerate(sorted(numbers)) if place in places)
    facts = work._replace(make=None, reports=None)  # type: ignore[arg-type]
    return Shapes(
        numbers=numbers,
        lane=shapes_of(lane),
        reports=reports,
        final=final,
        program=trace_hash(programs, facts),
        used=used,
        draws=len(step.program.in_avals) - 1 in _used(step.program),
        written=product_bytes(step.program.jaxpr),
        drawn=drawn._replace(told=trace_hash([drawn.program])),
        trial=trial,
    )


def _evaluated_batches(work: Workload, name: str) -> Iterator[Batch]:
    """The shapes of the batches in which a split is evaluated."""
    if (split := work.splits.get(name)) is None:
        return
    for size in evaluated_sizes(jax.tree.leaves(split)[0].shape[0], work.eval_batch_size):
        yield jax.tree.map(
            lambda a, size=size: jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype), split
        )


def _form(batch: Batch) -> Any:
    """A key that batches of the same structure, shapes and dtypes share."""
    leaves, structure = jax.tree.flatten(batch)
    return structure, tuple((a.shape, str(a.dtype)) for a in leaves)


def _used(program: core.ClosedJaxpr) -> list[int]:
    """The places of the inputs that the program uses."""
    known = {id(v) for eqn in program.eqns for v in eqn.invars}
    known |= {id(v) for v in program.jaxpr.outvars}
    return [place for place, v in enumerate(program.jaxpr.invars) if id(v) in known]


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
            "Trial.step must return a state of the same structure, shapes and dtypes as "
            "Trial.init makes, but they differ in\n" + ("\n".join(lines) or f"{before}\n{after}")
        )


def _check_metrics(where: str, metrics: Any) -> None:
    scalars = isinstance(metrics, dict) and all(
        getattr(m, "shape", None) == () for m in metrics.values()
    )
    if not scalars or not metrics:
        raise TypeError(
            f"Trial.{where} must return metrics as a dict of at least one scalar, got "
            f"{jax.tree.map(lambda m: getattr(m, 'shape', m), metrics)}."
        )


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """Shapes and a checksum of each split, which identify the data to a resumed run."""
    prints = {}
    for name, split in zip(Dataset._fields, dataset):
        if split is not None:
            shapes = [list(leaf.shape) for leaf in jax.tree.leaves(split)]
            prints[name] = {"shapes": shapes, "crc32": crc32(split)}
    return prints


def crc32(arrays: Any) -> int:
    """A checksum over all leaves."""
    total = 0
    for leaf in jax.tree.leaves(arrays):
        # As bytes: NumPy gives no buffer of bfloat16.
        total = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data, total)
    return total


def trace_hash(programs: Sequence[core.ClosedJaxpr], facts: Any = None) -> str:
    """A hash of traced computations, which identifies the program to a resumed run.

    Different code that computes the same has the same hash; another rate, layer
    or loss changes it. The hash covers the equations, not their printed form,
    which depends on the terminal, on options and on Python's hash seed.

    Args:
      programs: in order.
      facts: anything else that the program depends on.
    """
    digest = hashlib.sha256()
    for part in _parts((tuple(programs), facts)):
        digest.update(part)
    return digest.hexdigest()[:12]


def _parts(value: Any, numbered: dict[Any, int] | None = None) -> Iterator[bytes]:
    """Bytes of `value`, the same in every process; variables are numbered by first use."""
    numbered = {} if numbered is None else numbered
    if isinstance(value, core.ClosedJaxpr):
        yield from _parts((value.jaxpr, value.consts))
    elif isinstance(value, core.Jaxpr):
        own: dict[Any, int] = {}  # each program counts its own variables
        yield from _parts((value.constvars, value.invars), own)
        for eqn in value.eqns:
            # Names come from Python functions and do not affect the computation.
            params = {name: v for name, v in eqn.params.items() if name != "name"}
            yield from _parts((eqn.primitive.name, params, eqn.invars, eqn.outvars), own)
        yield from _parts(value.outvars, own)
    elif isinstance(value, core.Literal):
        yield from _parts((np.asarray(value.val), str(value.aval)))
    elif isinstance(value, core.Var):
        known = value in numbered
        yield b"v%d" % numbered.setdefault(value, len(numbered))
        yield b"" if known else str(value.aval).encode()
    elif isinstance(value, np.ndarray | np.generic | jax.Array):
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)  # type: ignore[arg-type]
        array = np.asarray(value)
        yield f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes()
    elif isinstance(value, dict):
        yield from _parts(sorted(value.items(), key=lambda item: str(item[0])), numbered)
    elif isinstance(value, set | frozenset):
        yield from sorted(b"".join(_parts(v)) for v in value)
    elif isinstance(value, tuple | list):
        yield b"("
        for each in value:
            yield from _parts(each, numbered)
            yield b","
        yield b")"
    elif isinstance(value, type):
        yield value.__name__.encode()
    elif callable(value) or hasattr(value, "__name__"):
        yield b"function"  # its repr has an address; its computation is traced anyway
    else:
        yield re.sub(r" at 0x[0-9a-f]+", "", repr(value)).encode()
