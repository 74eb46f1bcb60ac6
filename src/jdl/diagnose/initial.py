"""Checks of a network that has not trained: its penalty, and units that are alike."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl.diagnose.finding import Finding, Problem
from jdl.diagnose.subject import compiled, layers_of, objective
from jdl.engine.trial import Batch, State, Trial, params_of


def regularization_raises_loss(
    plain: Trial, penalised: Trial, batch: Batch, *, key: Any
) -> Finding:
    """Whether a penalty raises what is minimised, and pulls the weights towards 0.

    Compares the objective of both trials at the same parameters, and the first
    step of both: `penalised` must end with smaller weights. Without an
    `objective` only the steps are compared.

    Args:
      plain: the trial without the penalty.
      penalised: the same with it, and with the same initialisation.
      batch: a training batch.
      key: of the initialisation.

    Kinds: "lowers", "no_effect", "dominates" (the penalty is more than ten
    times the loss, which then hardly counts).

    Source: CS231n, "Sanity checks": raising the strength must raise the loss.
    """

    @compiled
    def look(key: Any, batch: Batch) -> Any:
        init, step = jax.random.split(key)
        values, weights = [], []
        for trial in (plain, penalised):
            state = trial.init(init, batch)
            value = objective(trial)(params_of(state), state, batch, step)
            after = params_of(trial.step(state, batch, step)[0])
            values.append(value)
            weights.append(sum(jnp.sum(w * w) for w in layers_of(after).values()))
        return jnp.stack(values), jnp.stack(weights)

    with jax.debug_key_reuse(False):  # both trials draw the same, which is the comparison
        (without, with_it), squares = (np.asarray(a, np.float64) for a in look(key, batch))
    known = penalised.objective is not None
    raised, shrunk = with_it - without, squares[0] - squares[1]
    figures = {
        "loss": without,
        "with_penalty": with_it,
        "raised_by": raised,
        "squared_weights_after_a_step": squares,
    }
    said = f"The objective is {without:.4g} without the penalty and {with_it:.4g} with it"
    if not known:
        said = (
            f"After a step the squared weights are {squares[0]:.6g} without and "
            f"{squares[1]:.6g} with the penalty"
        )
    problems = []
    effect = raised if known else shrunk
    # Rounding of a float32 sum, beside which an effect is none.
    least = 1e-6 * (abs(without) if known else squares[0])
    if effect < -least:
        problems.append(
            Problem("lowers", "wrong", f"{said}: the penalty has the wrong sign. Add it.")
        )
    elif effect <= least:
        problems.append(
            Problem(
                "no_effect",
                "suspicious",
                f"{said}: the penalty does not reach what is minimised, or is too weak to count.",
            )
        )
    elif known and raised > 10 * abs(without):
        problems.append(
            Problem(
                "dominates",
                "suspicious",
                f"{said}: the penalty is {raised / abs(without):.3g} times the loss, which then "
                "hardly counts. Lower its strength.",
            )
        )
    return Finding("regularization_raises_loss", figures, f"{said}.", tuple(problems))


def measure_symmetry(before: Any, after: Any) -> dict[str, Any]:
    """For each layer's weights the share of units that are equal to another, twice. Pure.

    A unit is what the last axis of a leaf counts. `before` and `after` are
    parameters at initialisation and after some steps; a unit counts if it
    equals its neighbour in both.
    """

    def twins(w: Any) -> Any:
        rows = w.reshape(-1, w.shape[-1])
        size = jnp.max(jnp.abs(rows)) + jnp.finfo(w.dtype).tiny
        return jnp.max(jnp.abs(rows[:, 1:] - rows[:, :-1]), 0) <= 1e-6 * size

    old, new = layers_of(before), layers_of(after)
    return {
        name: jnp.mean((twins(old[name]) & twins(new[name])).astype(jnp.float32))
        for name in old
        if old[name].shape[-1] > 1
    }


def symmetry(trial: Trial, batch: Batch, *, key: Any, steps: int = 3, seeds: int = 2) -> Finding:
    """Whether units start equal and stay equal, so that a layer is as one unit.

    Units that start equal (weights all 0, or all the same) get equal gradients
    and stay equal, unless something after them breaks the tie: a last layer of
    zeros is fine, all layers of zeros are not. So a few steps are taken before
    judging.

    Args:
      trial: any.
      batch: a training batch.
      key: of initialisation and steps.
      steps: how many are taken, all on `batch`.
      seeds: networks looked at; a unit counts where it is equal in all.

    Kind: "equal_units": of a layer half of the units or more (wrong), or a
    tenth (suspicious); drawn weights are never equal.

    Source: Goodfellow, Bengio, Courville (2016), Deep Learning, section 8.4.
    """

    @compiled
    def look(key: Any, batch: Batch) -> Any:
        def one(key: Any) -> Any:
            start, after = few_steps(trial, batch, key, steps)
            return measure_symmetry(params_of(start), params_of(after))

        return jax.vmap(one)(jax.random.split(key, seeds))

    return judge_symmetry(look(key, batch), steps)


def few_steps(trial: Trial, batch: Batch, key: Any, steps: int) -> tuple[State, State]:
    """A fresh state, and the same after `steps` steps on `batch`. Pure."""
    init, run = jax.random.split(key)
    start = trial.init(init, batch)

    def body(index: Any, state: State) -> State:
        return trial.step(state, batch, jax.random.fold_in(run, index))[0]

    return start, jax.lax.fori_loop(0, steps, body, start)


def judge_symmetry(measured: dict[str, Any], steps: int) -> Finding:
    """The finding of `symmetry` on what `measure_symmetry` gave, with a leading axis of seeds."""
    shares = {name: float(np.min(np.asarray(share))) for name, share in measured.items()}
    figures: dict[str, Any] = {"share_of_equal_units": shares}
    equal = {name: share for name, share in shares.items() if share >= 0.1}
    worst = max(shares.values(), default=0.0)
    note = f"No layer has units that start and stay equal after {steps} steps."
    if not equal:
        return Finding("symmetry", figures, note)
    named = ", ".join(f"{name} ({share:.0%})" for name, share in equal.items())
    advice = (
        f"Units start equal and are still equal after {steps} steps, in {named}: such a layer "
        "learns what one unit would. Draw the weights at random (nn.initializer.he_normal, "
        "lecun_normal); biases may be 0."
    )
    verdict = "wrong" if worst >= 0.5 else "suspicious"
    return Finding("symmetry", figures, note, (Problem("equal_units", verdict, advice),))
