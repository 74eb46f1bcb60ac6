"""Is every random key used once, and does every key that is given matter?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl.diagnose.finding import Finding, Problem
from jdl.diagnose.subject import compiled, layers_of, live
from jdl.engine.trial import Batch, Trial, params_of

# What draws: a key that only arrives at these may change what comes out.
_DRAWS = {"random_bits", "threefry2x32", "rng_bit_generator", "random_seed", "random_wrap"}


def key_reuse(trial: Trial, batch: Batch, *, key: Any) -> Finding:
    """Whether initialisation and step use every key once, and use the key they are given.

    Args:
      trial: any.
      batch: a training batch.
      key: of initialisation and a step.

    Kinds, all wrong: "reused": JAX's own checker (`jax.debug_key_reuse`) finds
    a typed key that is used twice. "equal_layers": two layers of the same shape
    start with the same drawn weights, as they do when they are given the same
    key of any type. "constant_key": the step draws random numbers, but another
    key draws the same, so that every step has the same noise. "same_start":
    `init` draws, but gives the same whatever its key.
    """
    batch = jax.tree.map(jnp.asarray, batch)
    problems: list[Problem] = []
    one, other, run = jax.random.split(key, 3)

    def both(init: Any, step: Any) -> Any:
        state = trial.init(init, batch)
        return trial.step(state, batch, step)

    try:
        with jax.debug_key_reuse(True):
            # A function of its own, so that no trace made without the checker is found.
            jax.eval_shape(lambda a, b: both(a, b), one, run)
    except jax.errors.KeyReuseError as error:
        advice = (
            f"A random key is used twice ({str(error).splitlines()[0].rstrip('.')}), so that two "
            "draws agree: jax.random.split it, or fold in a number for each use."
        )
        problems.append(Problem("reused", "wrong", advice))

    @compiled
    def look(one: Any, other: Any, run: Any) -> Any:
        state, again = trial.init(one, batch), trial.init(other, batch)
        state_again = trial.init(one, batch)
        step, next_step = jax.random.split(run)
        after = params_of(trial.step(state, batch, step)[0])
        after_other = params_of(trial.step(state_again, batch, next_step)[0])
        return params_of(state), params_of(again), after, after_other

    with jax.debug_key_reuse(False):
        drawn = _draws(lambda k: trial.init(k, batch), one)
        first, second, after, after_other = jax.tree.map(np.asarray, look(one, other, run))
        noisy = _draws(lambda k: trial.step(trial.init(other, batch), batch, k), run)
        quiet = _draws(lambda k: trial.init(other, batch), run)
    weights = {name: np.asarray(leaf) for name, leaf in layers_of(first).items()}
    varied = {n: w for n, w in weights.items() if w.size > 3 and np.ptp(w) > 0}
    figures: dict[str, Any] = {"init_draws": drawn, "step_draws": noisy - quiet}
    if twins := _twins(varied):
        named = "; ".join(" = ".join(pair) for pair in twins[:3])
        advice = (
            f"Layers start with the same weights ({named}): they were given the same key. Give "
            "each its own, by jax.random.split or fold_in."
        )
        problems.append(Problem("equal_layers", "wrong", advice))
    if drawn and varied and _same(first, second):
        advice = "init draws the same weights whatever its key, so that all seeds are one: use it."
        problems.append(Problem("same_start", "wrong", advice))
    if noisy > quiet and _same(after, after_other):
        advice = (
            f"The step draws random numbers ({noisy - quiet} draws), but the same ones whatever "
            "its key: every step has the same noise. Pass the key that the step is given."
        )
        problems.append(Problem("constant_key", "wrong", advice))
    note = (
        f"{drawn} draws at initialisation and {noisy - quiet} in a step, each from a key of its "
        "own."
    )
    return Finding("key_reuse", figures, note, tuple(problems))


def _draws(function: Any, key: Any) -> int:
    """How many operations of the function's program draw random numbers."""

    def count(jaxpr: Any) -> int:
        total = 0
        for equation in jaxpr.eqns:
            total += equation.primitive.name in _DRAWS
            for value in equation.params.values():
                for inner in value if isinstance(value, tuple | list) else [value]:
                    inner = getattr(inner, "jaxpr", inner)
                    total += count(inner) if hasattr(inner, "eqns") else 0
        return total

    program = jax.make_jaxpr(function)(key).jaxpr
    # What is drawn and then replaced, as by trained weights, is no draw.
    return count(live(program, [True] * len(program.outvars))[0])


def _same(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def _twins(weights: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """Pairs of layers of the same shape with the same numbers, up to a factor."""
    seen: dict[Any, str] = {}
    found = []
    for name, w in weights.items():
        unit = (w / np.abs(w).max()).astype(np.float32).round(4) + 0.0
        mark = (w.shape, unit.tobytes())
        if mark in seen:
            found.append((seen[mark], name))
        seen.setdefault(mark, name)
    return found
