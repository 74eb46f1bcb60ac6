"""Monitors: scalars that a sweep records of every lane at every report, besides its metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jdl import tree
from jdl._checks import check_choice
from jdl.diagnose.activation import measure_activations
from jdl.diagnose.gradient import measure_updates
from jdl.diagnose.subject import first, objective
from jdl.diagnose.tap import tap
from jdl.engine.trial import Batch, Metrics, State, Trial, adapted, params_of

Monitor = Callable[[Trial, State, Batch], Metrics]
"""`monitor(trial, state, batch) -> {name: scalar}`: pure, and the same names always."""

EXAMPLES = 64  # of each evaluated batch, for forward statistics
STEP_EXAMPLES = 32  # for a trial step


def update_ratio(trial: Trial, state: State, batch: Batch) -> Metrics:
    """How far a step on 32 of the examples would move the weights; the step is not kept.

    "update_ratio": the norm of the change over that of the weights, all layers
    together; "update_ratio_least" and "update_ratio_most" of single layers.
    """
    before = params_of(state)
    after = params_of(trial.step(state, first(batch, STEP_EXAMPLES), jax.random.key(0))[0])
    each = jnp.stack([*measure_updates(before, after).values()] or [jnp.nan])
    return {
        "update_ratio": tree.norm(tree.subtract(after, before)) / tree.norm(before),
        "update_ratio_least": jnp.min(each),
        "update_ratio_most": jnp.max(each),
    }


def gradient_norm(trial: Trial, state: State, batch: Batch) -> Metrics:
    """The norm of the objective's gradient, "gradient_norm", on 32 of the examples."""
    grads = jax.grad(objective(trial))(
        params_of(state), state, first(batch, STEP_EXAMPLES), jax.random.key(0)
    )
    return {"gradient_norm": tree.norm(grads)}


def dead_share(trial: Trial, state: State, batch: Batch) -> Metrics:
    """Gives "dead_share", the share of ReLU units that are 0 for 64 examples (0 without any)."""
    batch = first(batch, EXAMPLES)
    sites = [s for s in tap(trial.evaluate, state, batch)[1] if s.kind == "relu"]
    units = [(jnp.max(s.y.reshape(-1, s.y.shape[-1]), axis=0) <= 0) for s in sites]
    share = jnp.mean(jnp.concatenate(units).astype(jnp.float32)) if units else jnp.float32(0)
    return {"dead_share": share}


def saturated_share(trial: Trial, state: State, batch: Batch) -> Metrics:
    """Gives "saturated_share" of the most saturated tanh or sigmoid layer (0 without one)."""
    layers = measure_activations(trial, state, first(batch, EXAMPLES)).values()
    shares = [figures["saturated"] for figures in layers if "saturated" in figures]
    return {"saturated_share": jnp.max(jnp.stack(shares)) if shares else jnp.float32(0)}


def signal(trial: Trial, state: State, batch: Batch) -> Metrics:
    """The spread over 64 examples at the last product over that at the first: "signal"."""
    layers = measure_activations(trial, state, first(batch, EXAMPLES))
    names = sorted(set(layers) - {"input"}, key=lambda n: int(n.split(" ")[0]))
    linear = [n for n in names if not {"dead", "saturated"} & {*layers[n]}]
    if len(linear) < 2:
        return {"signal": jnp.float32(1)}
    return {"signal": layers[linear[-1]]["spread"] / layers[linear[0]]["spread"]}


MONITORS: dict[str, Monitor] = {
    "update_ratio": update_ratio,
    "gradient_norm": gradient_norm,
    "dead_share": dead_share,
    "saturated_share": saturated_share,
    "signal": signal,
}


def monitored(trial: Trial, monitors: Sequence[str | Monitor] = tuple(MONITORS)) -> Trial:
    """Makes the evaluation of `trial` also report monitors. Training does not change.

    Monitors run when the trial is evaluated: at every report, on the first
    examples of each batch of the validation split, and on the test split at the
    end; never in a step. With one report an epoch they cost little, and they
    miss what happens between reports. Without a validation split they run only
    at the end. A step that a monitor tries is thrown away.

    Args:
      trial: any.
      monitors: names (update_ratio, gradient_norm, dead_share, saturated_share,
        signal) or functions `(trial, state, batch) -> {name: scalar}`.

    Raises:
      ValueError: no monitor has that name, or two report the same name, or one
        that the trial reports.

    >>> from jdl import nn, optim, train
    >>> trial = train.classifier(nn.dense(2), optim.sgd(0.1))
    >>> batch = jnp.ones((4, 3)), jnp.zeros(4, int)
    >>> state = trial.init(jax.random.key(0), batch)
    >>> sorted(monitored(trial, ["gradient_norm"]).evaluate(state, batch))
    ['accuracy', 'gradient_norm', 'loss']
    """
    for monitor in monitors:
        if isinstance(monitor, str):
            check_choice("monitors", monitor, [*MONITORS])
    functions = [MONITORS[m] if isinstance(m, str) else m for m in monitors]

    def evaluate(state: State, batch: Batch) -> Metrics:
        metrics = dict(trial.evaluate(state, batch))
        for function in functions:
            seen = function(trial, state, batch)
            if both := {*seen} & {*metrics}:
                raise ValueError(f"Two of trial and monitors report {min(both)!r}. Rename one.")
            metrics |= seen
        return metrics

    return adapted(trial, evaluate=evaluate)


def watched(
    make_trial: Callable[..., Trial], monitors: Sequence[str | Monitor]
) -> Callable[..., Trial]:
    """`make_trial`, with each of its trials `monitored`."""
    if isinstance(monitors, str):
        raise TypeError(f"`monitors` must be a list of them, got monitors={monitors!r}.")
    return lambda config: monitored(make_trial(config), monitors)
