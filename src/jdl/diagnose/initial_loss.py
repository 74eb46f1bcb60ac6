"""The loss of a network that has not trained: is it that of knowing nothing?"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl.diagnose.finding import Finding, Problem, graded
from jdl.diagnose.subject import classes_in, compiled, first, length, loss_in
from jdl.engine.trial import Batch, State, Trial


def measure_loss(
    trial: Trial, state: State, batch: Batch, classes: int | None = None
) -> dict[str, Any]:
    """The loss of `batch`, of each of its first 64 examples, and with every label. Pure.

    Each example is evaluated as a pair of copies, because batch norm in training
    mode refuses a single one.

    Args:
      trial: whatever evaluates a "loss".
      state: its state.
      batch: some examples.
      classes: of the labels in `batch = (x, y)`; None leaves "by_label" out.

    Returns:
      "loss" and "of_few", that of the first 64, scalars; "each", (examples,);
      "by_label", (examples, classes), what some examples cost with each label.
    """

    def alone(example: Any) -> Any:
        return loss_in(trial.evaluate(state, jax.tree.map(lambda a: jnp.stack([a, a]), example)))

    few = first(batch, min(length(batch), 64))
    found = {
        "loss": loss_in(trial.evaluate(state, batch)),
        "of_few": loss_in(trial.evaluate(state, few)),
        "each": jax.vmap(alone)(few),
    }
    if classes is not None and 1 < classes <= 10_000:  # more are numbers, not classes
        x, y = first(few, max(2, min(16, 4096 // classes)))
        labels = jnp.arange(classes, dtype=jnp.asarray(y).dtype)
        found["by_label"] = jax.vmap(lambda x: jax.vmap(lambda c: alone((x, c)))(labels))(x)
    return found


def loss_at_init(
    trial: Trial, batch: Batch, *, key: Any, expected: float | None = None, seeds: int = 4
) -> Finding:
    """Whether the loss before training is that of a network that knows nothing.

    A softmax over `C` classes that knows nothing says `1/C`, at a loss of
    `log(C)`. Logits of standard deviation `s` raise it by about `s**2 / 2`, so
    the excess tells how sure of itself the untrained network is: 1 nat is
    `s = 1.4`, which is more than any initialisation that keeps the variance
    gives (0.5 to 1); 3 nats is `s = 2.4`. A loss below `log(C)` is that of a
    network that has trained before.

    Only a cross-entropy is judged so. It is known by what it costs an example
    with each of the labels, `L_c = -log p_c`: `sum(exp(-L_c))` is 1. A loss that is
    `k` times a cross-entropy has `sum(exp(-L_c / k)) = 1` with the same `k`
    for all examples; the `k` of other losses (a hinge, squares, those of inputs) differ.

    Args:
      trial: whatever evaluates a "loss".
      batch: about 256 examples `(x, y)`.
      key: of the initialisation.
      expected: the loss to expect; None is the log of the number of classes for
        a cross-entropy of integer labels, and unknown for other losses. Of
        floating-point targets a loss of more than ten times their mean square is called large.
      seeds: networks looked at.

    Kinds: "not_finite", "summed", "scaled", "confident", "large".

    Source: Karpathy, "A recipe for training neural networks" (2019) and the
    course notes CS231n, "Sanity checks", which compare the first loss with
    `log(C)`.
    """
    classes = classes_in(batch)

    @compiled
    def look(key: Any, batch: Batch) -> Any:
        return jax.vmap(lambda k: measure_loss(trial, trial.init(k, batch), batch, classes))(
            jax.random.split(key, seeds)
        )

    return judge_loss(look(key, batch), batch, expected)


def judge_loss(measured: dict[str, Any], batch: Batch, expected: float | None = None) -> Finding:
    """The finding of `loss_at_init` on what `measure_loss` gave, with a leading axis of seeds."""
    loss, each = (np.asarray(measured[name], np.float64) for name in ("loss", "each"))
    seen, few = float(loss.mean()), each.shape[1]
    mean_of_each = float(each.mean())
    figures: dict[str, Any] = {
        "loss": seen,
        "of_each_seed": loss,
        "mean_of_examples": mean_of_each,
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
    factor = None
    if "by_label" in measured:
        factor = entropy_factor(np.asarray(measured["by_label"], np.float64))
        figures["entropy_factor"] = factor
    if factor is not None and expected is None:
        expected = factor * math.log(classes_in(batch) or 1)
    if expected is None:
        return _judge_regression(figures, batch)
    figures["expected"] = expected
    said = f"The loss before training is {seen:.3g}; knowing nothing costs {expected:.3g}"
    if factor is not None and not 0.8 < factor < 1.25:
        advice = (
            f"The loss before training is {seen:.3g}, which is {factor:.4g} times a cross-entropy "
            "for every example: the loss is scaled. Report the plain mean; a factor is a change "
            "of the rate."
        )
        return Finding("loss_at_init", figures, said, (Problem("scaled", "wrong", advice),))
    problems = []
    if verdict := graded(seen - expected, 1.0, 3.0):
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
    if seen < 0.8 * expected:
        said += ", so the network has trained before"
    return Finding("loss_at_init", figures, f"{said}.", tuple(problems))


def entropy_factor(by_label: np.ndarray) -> float | None:
    """How many times a cross-entropy a loss is; None where it is another loss.

    Args:
      by_label: the loss of examples with each of the labels, the last axis.

    >>> logits = np.array([[1.0, 0.0, -2.0], [0.5, 0.0, 0.25]])
    >>> entropy = np.log(np.exp(logits).sum(1, keepdims=True)) - logits
    >>> round(entropy_factor(7 * entropy), 6), entropy_factor((1 - logits) ** 2)
    (7.0, None)
    """
    losses = by_label.reshape(-1, by_label.shape[-1])
    if not (np.isfinite(losses).all() and (losses >= 0).all() and losses.max() > 0):
        return None
    # sum(exp(-L / k)) grows with k, from 0 (or the number of zeros) to the number of labels.
    low, high = np.full(len(losses), -20.0), np.full(len(losses), 20.0)
    for _ in range(60):
        middle = (low + high) / 2
        above = np.exp(-losses / np.exp(middle)[:, None]).sum(1) > 1
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    factor = float(np.exp(np.median(low)))
    if 0.8 < factor < 1.25:  # as with smoothed labels, or an output without a class
        return 1.0
    # Where all labels cost about the same, any loss looks like a cross-entropy.
    varied = float(np.median(losses.std(1) / losses.mean(1)))
    exact = varied > 0.01 and float(np.std(low)) < 1e-5 + 0.02 * varied**2
    return factor if exact else None


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
