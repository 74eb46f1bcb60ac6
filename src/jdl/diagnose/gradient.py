"""Checks of what flows backward and what a step changes: gradients by depth, updates by layer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl import tree
from jdl.diagnose.activation import _by_position
from jdl.diagnose.finding import Finding, Problem, graded
from jdl.diagnose.initial import few_steps
from jdl.diagnose.subject import compiled, layers_of, length, loss_in, objective
from jdl.diagnose.tap import tap
from jdl.engine.trial import Batch, State, Trial, params_of


def measure_gradients(trial: Trial, state: State, batch: Batch, key: Any) -> dict[str, Any]:
    """The gradient that arrives at every layer and at every parameter. Pure.

    Returns:
      "arriving": for each place that `tap` finds, in order of depth, the root
      mean square of the evaluated loss's derivative by what comes out there,
      times the examples of the batch; "leaves": the norm of the objective's
      gradient by each parameter, by name; "norm": that of all together.
    """
    names, nudges = _places(trial, state, batch)

    def loss(nudges: Any) -> Any:
        return loss_in(tap(trial.evaluate, state, batch, nudges=nudges)[0])

    arriving = jax.grad(loss)(nudges)
    grads = jax.grad(objective(trial), allow_int=True)(params_of(state), state, batch, key)
    leaves = {
        name: tree.norm(g)
        for name, g in tree.named_leaves(grads).items()
        if jnp.issubdtype(g.dtype, jnp.inexact)
    }
    return {
        "arriving": {
            name: length(batch) * jnp.sqrt(jnp.mean(jnp.square(g)))
            for name, g in zip(names, arriving, strict=True)
            if g.shape[0] == length(batch)
        },
        "leaves": leaves,
        "norm": jnp.sqrt(sum(jnp.square(norm) for norm in leaves.values())),
    }


def _places(trial: Trial, state: State, batch: Batch) -> tuple[list[str], list[Any]]:
    """The names of the places that `tap` finds, and a zero for each; nothing is computed."""
    names: list[str] = []

    def look() -> list[Any]:
        sites = tap(trial.evaluate, state, batch)[1]
        names.extend(site.name for site in sites)
        return [site.y for site in sites]

    return names, [jnp.zeros(y.shape, y.dtype) for y in jax.eval_shape(look)]


def gradient_statistics(
    trial: Trial, batch: Batch, *, key: Any, steps: int = 3, seeds: int = 2
) -> Finding:
    """Whether gradients reach the first layer, neither fading nor growing on the way.

    What is compared is the derivative by what comes out of each layer (not by
    its weights, whose gradient also has the forward signal in it), after a few
    steps: at the very start a last layer of zeros lets nothing pass, rightly.

    Args:
      trial: any; it is tapped, not changed.
      batch: a training batch.
      key: of initialisation and steps.
      steps: taken before looking.
      seeds: networks looked at; figures are their medians.

    Kinds: "vanishing": at the first layer less than 1e-3 (suspicious) or 1e-5
    (wrong) of what arrives at the last. "exploding": more than 1e3 or 1e6
    times. A layer that keeps the variance has a factor of 1; the sigmoid's
    slope of at most 1/4 alone gives 1e-3 in five layers. "no_gradient": a
    parameter of which the objective's derivative is exactly 0. "not_finite".

    Sources: Glorot and Bengio (2010), figures 7 and 12; Pascanu, Mikolov,
    Bengio (2013), On the difficulty of training recurrent neural networks.
    """

    @compiled
    def look(key: Any, batch: Batch) -> Any:
        def one(key: Any) -> Any:
            run, grad = jax.random.split(key)
            after = few_steps(trial, batch, run, steps)[1]
            return measure_gradients(trial, after, batch, grad)

        return jax.vmap(one)(jax.random.split(key, seeds))

    return judge_gradients(look(key, batch))


def judge_gradients(measured: dict[str, Any]) -> Finding:
    """The finding on what `measure_gradients` gave, with a leading axis of seeds."""
    arriving = {
        name: float(np.median(measured["arriving"][name]))
        for name in _by_position(measured["arriving"])
    }
    leaves = {name: float(np.median(v)) for name, v in measured["leaves"].items()}
    norm = float(np.median(measured["norm"]))
    figures = {"arriving": arriving, "leaves": leaves, "norm": norm}
    if not np.isfinite([norm, *arriving.values()]).all():
        advice = "The gradient is not finite: lower the rate, draw smaller weights, or clip it."
        return Finding(
            "gradient_statistics", figures, "", (Problem("not_finite", "wrong", advice),)
        )
    problems = []
    nothing = [name for name, value in leaves.items() if value == 0]
    if nothing:
        named = ", ".join(nothing[:4]) + (", ..." if len(nothing) > 4 else "")
        advice = (
            f"No gradient reaches {named}: it is cut off (stop_gradient, rounding, argmax), dead "
            "or unused. What is frozen on purpose may be so."
        )
        problems.append(Problem("no_gradient", "suspicious", advice))
    note = f"The gradient's norm is {norm:.2g}."
    if len(arriving) > 1 and list(arriving.values())[-1] > 0:
        (first, at_first), *_, (last, at_last) = arriving.items()
        ratio = at_first / at_last
        note = (
            f"The gradient that arrives at {first} is {ratio:.2g} times that at {last}, and its "
            f"norm over all parameters {norm:.2g}."
        )
        figures["first_to_last"] = ratio
        if ratio > 0 and (verdict := graded(1 / ratio, 1e3, 1e5)):
            advice = (
                f"Gradients vanish: at {first} arrives {ratio:.1g} of what does at {last}. Use "
                "ReLU or tanh with weights that keep the variance, normalise, or add shortcuts."
            )
            problems.append(Problem("vanishing", verdict, advice))
        if verdict := graded(ratio, 1e3, 1e6):
            advice = (
                f"Gradients explode: at {first} arrives {ratio:.1g} times what does at {last}. "
                "Draw smaller weights (lecun_normal, he_normal), normalise, or clip."
            )
            problems.append(Problem("exploding", verdict, advice))
    return Finding("gradient_statistics", figures, note, tuple(problems))


def measure_updates(before: Any, after: Any) -> dict[str, Any]:
    """For each layer's weights the norm of their change over their norm before it. Pure."""
    old, new = layers_of(before), layers_of(after)
    tiny = jnp.finfo(jnp.float32).tiny
    return {
        name: tree.norm(new[name] - old[name]) / jnp.maximum(tree.norm(old[name]), tiny)
        for name in old
    }


def update_ratio(
    trial: Trial, batch: Batch, *, key: Any, steps: int = 10, seeds: int = 2
) -> Finding:
    """How far a step moves each layer's weights, in proportion to them: about 1e-3 is healthy.

    Args:
      trial: any.
      batch: a training batch, on which `steps` steps are taken.
      key: of initialisation and steps.
      steps: taken; the figure is the median over all but the first.
      seeds: networks looked at.

    Kinds: "large": above 0.1 (suspicious) or 1 (wrong: a step replaces the
    weights). "small": every layer below 1e-5 (suspicious) or 1e-7 (wrong:
    float32 rounds such a step away). "still": a layer does not move at all
    while others do; it is cut off, or frozen on purpose (suspicious).
    Adam's first steps are of the size of the rate whatever the gradient, 1e-2
    of small weights, so only 0.1 is called large.

    Source: CS231n, "Ratio of weights:updates", names 1e-3.
    """

    @compiled
    def look(key: Any, batch: Batch) -> Any:
        def one(key: Any) -> Any:
            init, run = jax.random.split(key)

            def body(state: State, index: Any) -> tuple[State, Any]:
                after = trial.step(state, batch, jax.random.fold_in(run, index))[0]
                return after, measure_updates(params_of(state), params_of(after))

            ratios = jax.lax.scan(body, trial.init(init, batch), jnp.arange(steps))[1]
            return jax.tree.map(lambda r: jnp.median(r[1:]), ratios)

        return jax.vmap(one)(jax.random.split(key, seeds))

    return judge_updates(look(key, batch))


def judge_updates(measured: dict[str, Any]) -> Finding:
    """The finding on what `measure_updates` gave, with a leading axis of seeds."""
    ratios = {name: float(np.median(value)) for name, value in measured.items()}
    figures = {"ratio": ratios}
    if not ratios:
        return Finding("update_ratio", figures, "There is no weight of two axes to look at.")
    high = max(ratios, key=lambda n: np.inf if np.isnan(ratios[n]) else ratios[n])
    low = min(ratios, key=ratios.__getitem__)
    note = (
        f"A step moves the weights by {ratios[low]:.1g} of themselves in {low} and "
        f"{ratios[high]:.1g} in {high}."
    )
    problems = []
    if verdict := graded(ratios[high], 0.1, 1.0):
        advice = (
            f"A step moves {high} by {ratios[high]:.2g} of itself, where 0.001 is usual: lower "
            "the rate, or draw larger weights."
        )
        problems.append(Problem("large", verdict, advice))
    elif ratios[high] < 1e-5:
        advice = (
            f"A step moves no layer by more than {ratios[high]:.1g} of itself, where 0.001 is "
            "usual: raise the rate."
        )
        problems.append(Problem("small", "wrong" if ratios[high] < 1e-7 else "suspicious", advice))
    still = [name for name, ratio in ratios.items() if ratio == 0]
    if still and ratios[high] > 0:
        advice = (
            f"{', '.join(still)} does not move while other layers do: no gradient reaches it, or "
            "it is frozen."
        )
        problems.append(Problem("still", "suspicious", advice))
    return Finding("update_ratio", figures, note, tuple(problems))
