"""How trials begin in lanes: groups of one model share the program that draws its weights."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core
from jax.interpreters import partial_eval
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jdl import tree
from jdl.engine import cache
from jdl.engine.keys import keys_of
from jdl.engine.lane import Lanes, start_lane
from jdl.engine.trial import Trial
from jdl.engine.workload import Numbers, Workload


class Drawn(NamedTuple):
    """The part of a new state that its key and numbers decide; the rest is the same in all lanes.

    Attributes:
      places: of its leaves in the state.
      numbers: the names of those that it reads.
      program: `(*numbers, key) -> leaves`.
      told: a hash of it.
    """

    places: tuple[int, ...]
    numbers: tuple[str, ...]
    program: core.ClosedJaxpr
    told: str = ""


def drawn_by(init: core.ClosedJaxpr, names: Sequence[str]) -> Drawn:
    """What is drawn in a trace of `init(*numbers, key)`, the numbers being called `names`."""
    known = {*init.jaxpr.invars}
    for eqn in init.eqns:
        if any(isinstance(v, core.Var) and v in known for v in eqn.invars):
            known |= {*eqn.outvars}
    wanted = [isinstance(v, core.Var) and v in known for v in init.jaxpr.outvars]
    # The key stays an input, whether it is used or not.
    keep = [False] * len(names) + [True]
    reduced, used = partial_eval.dce_jaxpr(init.jaxpr, wanted, keep)
    return Drawn(
        tuple(place for place, drawn in enumerate(wanted) if drawn),
        tuple(name for name, read in zip(names, used) if read),
        core.ClosedJaxpr(reduced, init.consts),
    )


class Refill(NamedTuple):
    """The compiled start of trials.

    Attributes:
      draw: `draw(numbers, keys) -> leaves` for every lane; None if nothing is drawn.
      place: `place(lanes, leaves, assignment) -> lanes`, the fresh ones begun.
      drawn: what `draw` draws.
      memory: the compiler's figures of `draw`, or None.
    """

    draw: Any
    place: Any
    drawn: Drawn
    memory: Any

    def __call__(self, lanes: Lanes, assignment: Any) -> Lanes:
        """Puts the fresh lanes at the start of their trials."""
        leaves = []
        if self.draw is not None:
            numbers = {name: assignment.numbers[name] for name in self.drawn.numbers}
            leaves = self.draw(numbers, assignment.keys)
        return self.place(lanes, leaves, assignment)


_alive: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def compile_refill(
    work: Workload,
    drawn: Drawn,
    program: str,
    trial: Callable[[Numbers], Trial],
    like: tuple[Lanes, Any],
    mesh: Mesh,
) -> Refill:
    """Compiles the start of trials, or finds it.

    Args:
      work: what they run.
      drawn: what their initialisation draws.
      program: a hash of the trial's computation.
      trial: gives the trial of a lane's numbers.
      like: shapes of lanes and of an assignment, with their shardings.
      mesh: the devices.
    """
    lanes, assignment = like
    by_lane, devices = P("lanes"), [*mesh.devices.flat]
    mapped = dict(mesh=mesh, out_specs=by_lane, check_vma=False)  # type: dict[str, Any]

    def one_drawn(numbers: Numbers, words: Any) -> list[Any]:
        inputs = [numbers[name] for name in drawn.numbers]
        return core.jaxpr_as_fun(drawn.program)(*inputs, keys_of(words).init)

    draw = jax.shard_map(jax.vmap(one_drawn), in_specs=(by_lane, by_lane), **mapped)
    numbers = {name: assignment.numbers[name] for name in drawn.numbers}
    inputs = numbers, assignment.keys
    leaves = jax.tree.leaves(lanes.state)
    outputs = [leaves[place] for place in drawn.places]

    def begun(old: Lanes, numbers: Numbers, words: Any, fresh: Any, leaves: list[Any]) -> Lanes:
        new = start_lane(trial(numbers), work.batch, keys_of(words).init)
        state, structure = jax.tree.flatten(new.state)
        for place, leaf in zip(drawn.places, leaves, strict=True):
            state[place] = leaf
        return tree.where(fresh, new._replace(state=jax.tree.unflatten(structure, state)), old)

    def place_all(lanes: Lanes, leaves: list[Any], assign: Any) -> Lanes:
        return jax.vmap(begun)(lanes, assign.numbers, assign.keys, assign.fresh, leaves)

    place = jax.shard_map(place_all, in_specs=(by_lane, by_lane, by_lane), **mapped)
    facts = jax.tree.map(lambda a: (a.shape, str(a.dtype)), (lanes, assignment))
    placing, _ = cache.compiled(
        ("place", program, facts),
        devices,
        (jax.tree.structure(((lanes, outputs, assignment), {})), jax.tree.structure(lanes)),
        lambda: jax.jit(place, donate_argnums=0).lower(lanes, outputs, assignment).compile(),
    )
    if not drawn.places:
        return Refill(None, placing, drawn, None)
    told = ("draw", drawn.told, drawn.numbers, len(assignment.keys))
    name = cache.key(told, devices)
    with _lock:  # another group's thread may be compiling the same
        drawing = _alive.get(name)
        if drawing is None:
            drawing, _ = cache.compiled(
                told,
                devices,
                (jax.tree.structure((inputs, {})), jax.tree.structure(outputs)),
                lambda: jax.jit(draw).lower(*inputs).compile(),
            )
            _alive[name] = drawing
    return Refill(drawing, placing, drawn, drawing.memory_analysis())
