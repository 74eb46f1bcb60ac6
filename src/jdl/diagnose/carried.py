"""Is what a state carries from step to step of use: do statistics move, are moments read?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl import tree
from jdl.diagnose.finding import Finding, Problem
from jdl.diagnose.initial import few_steps
from jdl.diagnose.subject import compiled, live
from jdl.engine.trial import Batch, Trial, params_of


def carried_state(trial: Trial, batch: Batch, *, key: Any, steps: int = 3) -> Finding:
    """Whether training uses the arrays that its state holds besides the parameters.

    Looked at are arrays of more than one number: in the programs of step and
    evaluation for what reads them, and before and after a few steps for what
    moves.

    Args:
      trial: any whose state has parameters where `params_of` finds them.
      batch: a training batch.
      key: of initialisation and steps.
      steps: taken to see what moves.

    Kinds, both wrong: "unread": an array of a parameter's shape is made anew in
    each step, or stays 0, and neither the parameters nor the evaluation ever
    depend on it, as with an optimizer whose state is made anew in each step.
    "stands_still": two arrays of one shape, one of zeros and one of ones, are
    read in evaluation and never change, as the running statistics of batch
    norm do where training runs it in evaluation mode or drops what it returns.

    An optimizer made anew without keeping its state cannot be told from one
    that has none.
    """
    batch = jax.tree.map(jnp.asarray, batch)
    like = jax.eval_shape(trial.init, key, batch)
    leaves, structure = jax.tree.flatten(like)
    numbered = jax.tree.unflatten(structure, range(len(leaves)))
    names = [*tree.named_leaves(like)]
    params = {*jax.tree.leaves(params_of(numbered))}
    others = [
        i
        for i, leaf in enumerate(leaves)
        if i not in params and jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.size > 1
    ]
    figures: dict[str, Any] = {"carried": [names[i] for i in others]}
    if not others:
        return Finding("carried_state", figures, "The state holds nothing but parameters.")
    evaluated = _read_by_evaluation(trial, like, batch)
    used, by_itself = _read_by_steps(trial, like, batch, key, params | evaluated)

    @compiled
    def look(key: Any, batch: Batch) -> Any:
        return [
            [jax.tree.leaves(state)[i] for i in others]
            for state in few_steps(trial, batch, key, steps)
        ]

    start, after = jax.tree.map(np.asarray, look(key, batch))
    still = {i: np.array_equal(a, b) for i, a, b in zip(others, start, after, strict=True)}
    first = {i: a for i, a in zip(others, start, strict=True)}
    shapes = {leaves[i].shape for i in params}
    unread = [
        i
        for i in others
        if i not in used
        and leaves[i].shape in shapes
        and (not by_itself[i] or (still[i] and not first[i].any()))
    ]
    stuck = [i for i in others if i in evaluated and still[i]]
    zeros = [i for i in stuck if not first[i].any()]
    ones = [i for i in stuck if (first[i] == 1).all()]
    pairs = [(i, j) for i in zeros for j in ones if leaves[i].shape == leaves[j].shape]
    figures |= {"unread": [names[i] for i in unread], "still": [names[i] for i in stuck]}
    problems = []
    if unread:
        advice = (
            f"Nothing ever reads {_named(unread, names)} of the state: steps overwrite it, or "
            "leave it at 0, without looking. Is the optimizer's state made anew in each step? "
            "Make it once, in init, and give each step what the last one returned."
        )
        problems.append(Problem("unread", "wrong", advice))
    if pairs:
        both = [i for pair in pairs[:1] for i in pair]
        advice = (
            f"Evaluation reads {_named(both, names)}, but after {steps} steps they are still the "
            "zeros and ones of the start: running statistics do not follow. Does training run "
            "batch norm in evaluation mode, or drop the state that it returns?"
        )
        problems.append(Problem("stands_still", "wrong", advice))
    note = f"{len(others)} arrays are carried besides the parameters, and all are of use."
    return Finding("carried_state", figures, note, tuple(problems))


def _read_by_evaluation(trial: Trial, like: Any, batch: Batch) -> set[int]:
    """The numbers of the leaves of a state that evaluation reads."""
    program = jax.make_jaxpr(trial.evaluate)(like, batch).jaxpr
    read = live(program, [True] * len(program.outvars))[1]
    return {i for i in range(len(jax.tree.leaves(like))) if read[i]}


def _read_by_steps(
    trial: Trial, like: Any, batch: Batch, key: Any, wanted: set[int]
) -> tuple[set[int], dict[int, bool]]:
    """The leaves that what is `wanted` reads in any number of steps, and which read themselves."""
    count = len(jax.tree.leaves(like))
    program = jax.make_jaxpr(lambda s, b, k: trial.step(s, b, k)[0])(like, batch, key).jaxpr

    def read(outputs: set[int]) -> set[int]:
        found = live(program, [i in outputs for i in range(count)])[1]
        return {i for i in range(count) if found[i]}

    used = wanted
    while not used >= (more := read(used)):
        used = used | more
    return used, {i: i in used or i in read({i}) for i in range(count)}


def _named(at: list[int], names: list[str]) -> str:
    return ", ".join(names[i] for i in at[:3]) + (", ..." if len(at) > 3 else "")
