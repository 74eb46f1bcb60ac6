"""Checks of a network that has not trained: its loss, its penalty, and units that are alike."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl.diagnose.finding import Finding, Problem, graded
from jdl.diagnose.subject import classes_in, compiled, first, layers_of, length, loss_in, objective
from jdl.engine.trial import Batch, State, Trial, params_of


def measure_loss(trial: Trial, state: State, batch: Batch) -> dict[str, Any]:
    """The loss of `batch` and of each of its first 64 examples. Pure.

    Each example is evaluated as a pair of copies, because batch norm in training
    mode refuses a single one.

    Returns:
      "loss" and "of_few", that of the first 64, scalars; "each", (examples,).
    """
    few = first(batch, min(length(batch), 64))
    alone = jax.vmap(
        lambda example: loss_in(
            trial.evaluate(state, jax.tree.map(lambda a: jnp.stack([a, a]), example))
        )
    )(few)
    return {
        "loss": loss_in(trial.evaluate(state, batch)),
        "of_few": loss_in(trial.evaluate(state, few)),
        "each": alone,
    }


def loss_at_init(
    trial: Trial, batch: Batch, *, key: Any, expected: float | None = None, seeds: int = 4
) -> Finding:
    """Whether the loss before training is that of a network that knows nothing.

    A softmax over `C` classes that knows nothing says `1/C`, at a loss of
    `log(C)`. Logits of standard deviation `s` raise it by about `s**2 / 2`, so
    the excess tells how sure of itself the untrained network is: 1 nat is
    `s = 1.4`, which is more than any initialisation that keeps the variance
    gives (0.5 to 1); 3 nats is `s = 2.4`. A loss that is off by a factor, the
    same for every example, is scaled, or summed where it should be averaged.

    Args:
      trial: whatever evaluates a "loss".
      batch: about 256 examples `(x, y)`.
      key: of the initialisation.
      expected: the loss to expect; None is the log of the number of classes for
        integer labels, and unknown for other targets, of which a loss of more
        than ten times their mean square is called large.
      seeds: networks looked at.

    Kinds: "not_finite", "summed", "scaled", "confident", "large".

    Source: Karpathy, "A recipe for training neural networks" (2019) and the
    course notes CS231n, "Sanity checks", which compare the first loss with
    `log(C)`.
    """

    @compiled
    def look(key: Any, batch: Batch) -> Any:
        return jax.vmap(lambda k: measure_loss(trial, trial.init(k, batch), batch))(
            jax.random.split(key, seeds)
        )

    return judge_loss(look(key, batch), batch, expected)


def judge_loss(measured: dict[str, Any], batch: Batch, expected: float | None = None) -> Finding:
    """The finding of `loss_at_init` on what `measure_loss` gave, with a leading axis of seeds."""
    loss, each = (np.asarray(measured[name], np.float64) for name in ("loss", "each"))
    seen, few = float(loss.mean()), each.shape[1]
    classes = classes_in(batch)
    mean_of_each = float(each.mean())
    figures: dict[str, Any] = {
        "loss": seen,
        "of_each_seed": loss,
        "mean_of_examples": mean_of_each,
        "spread_of_examples": float(each.std() / max(abs(mean_of_each), 1e-30)),
    }
    ratio = float(np.mean(measured["of_few"])) / mean_of_each if mean_of_each else 1.0
    if not np.isfinite(loss).all():
        advice = (
            f"The loss before training is {seen:g}: look for logarithms of 0, divisions by 0 and "
            "overflow in the model or its data."
        )
        return Finding("loss_at_init", figures, "", (Problem("not_finite", "wrong", advice),))
    if few > 4 and abs(ratio - few / 2) < 0.05 * few:
        advice = (
            f"The loss of {few} examples together is {ratio:.3g} times that of one given twice: "
            "it is summed over the batch, so that gradients grow with the batch size; average it."
        )
        return Finding("loss_at_init", figures, "", (Problem("summed", "wrong", advice),))
    if expected is None and classes is not None:
        expected = math.log(classes) if classes > 1 else 0.0
    if expected is None:
        return _judge_regression(figures, batch)
    figures["expected"] = expected
    said = f"The loss before training is {seen:.3g}; knowing nothing costs {expected:.3g}"
    # Of sane logits losses deviate by 0.2 to 0.45 of their mean, of logits far apart by 0.7.
    even = figures["spread_of_examples"] < 0.55
    problems = []
    below = expected > 0 and seen < 0.8 * expected
    if below or (even and seen > 2 * expected + 1):
        problems.append(
            Problem(
                "scaled",
                "wrong",
                f"{said}, and every example's is off by about the same factor of "
                f"{seen / expected:.3g}: the loss is scaled, or the targets are no labels of "
                "these outputs. Report the plain mean; a factor is a change of the rate.",
            )
        )
    elif verdict := graded(seen - expected, 1.0, 3.0):
        spread = math.sqrt(2 * (seen - expected))
        problems.append(
            Problem(
                "confident",
                verdict,
                f"{said}. The excess is that of logits with a standard deviation of about "
                f"{spread:.2g}: scale the inputs to unit variance, or draw the last layer's "
                "weights smaller.",
            )
        )
    return Finding("loss_at_init", figures, f"{said}.", tuple(problems))


def _judge_regression(figures: dict[str, Any], batch: Batch) -> Finding:
    seen = figures["loss"]
    targets = batch[1] if isinstance(batch, tuple | list) and len(batch) == 2 else None
    if targets is None or not np.issubdtype(np.asarray(targets).dtype, np.floating):
        return Finding("loss_at_init", figures, f"The loss before training is {seen:.3g}.")
    square = float(np.mean(np.square(np.asarray(targets, np.float64))))
    figures["mean_square_of_targets"] = square
    said = f"The loss before training is {seen:.3g}; the targets' mean square is {square:.3g}"
    problems = []
    if verdict := graded(seen / max(square, 1e-30), 10.0, 1000.0):
        problems.append(
            Problem(
                "large",
                verdict,
                f"{said}: the untrained outputs are far larger than the targets. Scale the "
                "inputs, or draw the last layer's weights smaller.",
            )
        )
    return Finding("loss_at_init", figures, f"{said}.", tuple(problems))


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
