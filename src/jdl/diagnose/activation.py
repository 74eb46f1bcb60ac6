"""Checks of what flows forward: dead or saturated units, and a signal that fades or grows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl.diagnose.finding import Finding, Problem, graded
from jdl.diagnose.subject import compiled, length
from jdl.diagnose.tap import Site, tap
from jdl.engine.trial import Batch, State, Trial

BINS = 41


def measure_activations(
    trial: Trial, state: State, batch: Batch, *, histogram: bool = False
) -> dict[str, dict[str, Any]]:
    """What every layer gives for `batch`, by the layer's name, in order of depth. Pure.

    A unit is an element of the last axis; all others are examples (and
    positions) of it.

    Args:
      trial: any; it is tapped, not changed.
      state: its state.
      batch: at least 64 examples, for shares of dead units to mean something.
      histogram: whether to count values as well.

    Returns:
      For each layer "mean" and "std" over everything; "spread", the root mean
      square over units of a unit's deviation over the examples, which is the
      signal; "centre", the mean over its root mean square: 0 is zero-centred;
      for a ReLU "dead", the share of units that are 0 for every example; for
      a sigmoid or a tanh "saturated", the share of values where the slope is
      below 5 % of its largest. "input" is the batch's own.
    """
    _, sites = tap(trial.evaluate, state, batch)
    sites = [site for site in sites if site.y.shape[0] == length(batch)]
    measured = {}
    x = jax.tree.leaves(batch)[0]
    if jnp.issubdtype(x.dtype, jnp.floating) and x.ndim > 1:
        measured["input"] = _figures(Site("input", "input", x), histogram)
    return measured | {site.name: _figures(site, histogram) for site in sites}


def _figures(site: Site, histogram: bool) -> dict[str, Any]:
    y = site.y.astype(jnp.float32)
    units = y.reshape(-1, y.shape[-1])
    mean, square = jnp.mean(units), jnp.mean(jnp.square(units))
    spread = jnp.sqrt(jnp.mean(jnp.var(units, axis=0)))
    if site.kind == "input":  # nearly constant pixels may be large once standardised
        spread = jnp.std(units)
    figures = {
        "mean": mean,
        "std": jnp.std(units),
        "spread": spread,
        "centre": mean / jnp.sqrt(jnp.maximum(square, jnp.finfo(jnp.float32).tiny)),
    }
    if site.kind == "relu":
        figures["dead"] = jnp.mean((jnp.max(units, axis=0) <= 0).astype(jnp.float32))
    if site.kind in ("tanh", "sigmoid"):
        # Slopes 1 - y**2 of tanh and y * (1 - y) of the sigmoid, at most 1 and 1/4.
        slope = 1 - jnp.square(y) if site.kind == "tanh" else 4 * y * (1 - y)
        figures["saturated"] = jnp.mean((slope < 0.05).astype(jnp.float32))
    if histogram:
        # Of standardised pixels a few are far out, and would leave one bar to all others.
        far = 4 * figures["std"]
        low = jnp.maximum(jnp.min(units), mean - far)
        high = jnp.minimum(jnp.max(units), mean + far)
        edges = jnp.linspace(low, jnp.where(high > low, high, low + 1), BINS + 1)
        figures["edges"] = edges
        figures["counts"] = jnp.histogram(units, edges)[0]
    return figures


def activation_statistics(trial: Trial, batch: Batch, *, key: Any, seeds: int = 2) -> Finding:
    """Whether the untrained layers pass a signal on: nothing dead, saturated, fading, growing.

    Args:
      trial: any; it is tapped, not changed.
      batch: about 256 examples.
      key: of the initialisation.
      seeds: networks looked at; figures are their means.

    Kinds, each with the shares above which it is suspicious and wrong:
    "dead": units of a ReLU layer at 0 for every example, 25 % and 50 % (half
    is what SageMaker Debugger's `DeadRelu` calls a dead layer; with zero biases
    a drawn unit is off for half of the inputs, and for all of 256 hardly ever).
    "saturated": values of a tanh or sigmoid layer, 30 % and 60 % (a tanh of
    a standard normal has 3 %).
    "fading" and "growing": the signal's spread at the last hidden product
    against the input's, below 1e-3 and 1e-6, above 1e3 and 1e6 (a layer that
    keeps the variance has a factor of 1, so ten layers off by 2 reach 1e3).
    "not_finite".

    Sources: Glorot and Bengio (2010), Understanding the difficulty of training
    deep feedforward neural networks; Lu, Shin, Su, Karniadakis (2019), Dying
    ReLU and initialization.
    """

    @compiled
    def look(key: Any, batch: Batch) -> Any:
        def one(key: Any) -> Any:
            return measure_activations(trial, trial.init(key, batch), batch, histogram=True)

        return jax.vmap(one)(jax.random.split(key, seeds))

    return judge_activations(look(key, batch))


def judge_activations(measured: dict[str, dict[str, Any]]) -> Finding:
    """The finding on what `measure_activations` gave, with a leading axis of seeds."""
    names = _by_position(measured)
    table = {
        name: {k: np.asarray(v, np.float64).mean(0) for k, v in measured[name].items()}
        for name in names
    }
    problems = []
    if bad := [name for name in names if not np.isfinite(table[name]["mean"])]:
        advice = f"What {bad[0]} gives is not finite: the signal overflows. Draw smaller weights."
        problems.append(Problem("not_finite", "wrong", advice))
    for kind, suspicious, wrong, remedy in (
        (
            "dead",
            0.25,
            0.5,
            "They get no gradient and stay so. Draw biases at 0 or a little above, lower the "
            "rate, or use a leaky ReLU.",
        ),
        (
            "saturated",
            0.3,
            0.6,
            "Where it is flat no gradient passes. Draw smaller weights, scale the inputs to "
            "unit variance, or use a ReLU.",
        ),
    ):
        shares = {name: float(t[kind]) for name, t in table.items() if kind in t}
        name = max(shares, key=shares.__getitem__, default="")
        if name and (verdict := graded(shares[name], suspicious, wrong)):
            others = [n for n in shares if shares[n] > suspicious]
            also = f" ({len(others)} layers are above {suspicious:.0%})" if len(others) > 1 else ""
            problems.append(
                Problem(kind, verdict, f"{shares[name]:.0%} of {name} is {kind}{also}. {remedy}")
            )
    linear = [n for n in names if n != "input" and not {"dead", "saturated"} & {*table[n]}]
    hidden = linear[:-1]  # the last one may start at 0 by design
    if hidden and "input" in table:
        before, after = (float(table[n]["spread"]) for n in ("input", hidden[-1]))
        ratio = after / max(before, 1e-30)
        for kind, value, remedy in (
            ("fading", 1 / max(ratio, 1e-30), "Draw larger weights"),
            ("growing", ratio, "Draw smaller weights"),
        ):
            if verdict := graded(value, 1e3, 1e6):
                advice = (
                    f"The signal is {kind}: its spread over examples is {before:.2g} at the "
                    f"input and {after:.2g} at {hidden[-1]}. {remedy} (lecun_normal, he_normal "
                    "keep it), or normalise between layers."
                )
                problems.append(Problem(kind, verdict, advice))
    note = f"{len(names)} places looked at."
    if hidden and "input" in table:
        note = (
            f"The signal's spread over examples is {table['input']['spread']:.2g} at the input "
            f"and {table[hidden[-1]]['spread']:.2g} at {hidden[-1]}, the last hidden product."
        )
    return Finding("activation_statistics", {"layers": table}, note, tuple(problems))


def dead_units(trial: Trial, state: State, data: Batch, *, batch_size: int = 512) -> Finding:
    """Which ReLU units are 0 for every example of a data set, after training.

    Args:
      trial: any; it is tapped, not changed.
      state: of a trained network.
      data: a whole split; the remainder of a batch is left out.
      batch_size: examples looked at once.

    Kind: "dead", of the units of a layer more than 25 % (suspicious) or half
    (wrong), as in `activation_statistics`, by two standard errors of a share of
    25 % of so many units; figures have a mask for each layer.

    Source: Lu, Shin, Su, Karniadakis (2019), Dying ReLU and initialization.
    """
    batch_size = min(batch_size, length(data))
    count = length(data) // batch_size

    @compiled
    def look(state: State, data: Batch) -> Any:
        def one(batch: Batch) -> Any:
            _, sites = tap(trial.evaluate, state, batch)
            return {
                site.name: jnp.max(site.y.reshape(-1, site.y.shape[-1]), axis=0)
                for site in sites
                if site.kind == "relu"
            }

        batches = jax.tree.map(
            lambda a: a[: count * batch_size].reshape(count, batch_size, *a.shape[1:]), data
        )
        return jax.tree.map(lambda m: jnp.max(m, axis=0) <= 0, jax.lax.map(one, batches))

    found = look(state, data)
    dead = {name: np.asarray(found[name]) for name in _by_position(found)}
    shares = {name: float(mask.mean()) for name, mask in dead.items()}
    total = sum(int(mask.sum()) for mask in dead.values())
    units = sum(mask.size for mask in dead.values())
    figures = {"dead": dead, "share": shares, "examples": count * batch_size}
    note = f"{total} of {units} ReLU units are 0 for all of {count * batch_size} examples."
    if not units:
        return Finding("dead_units", figures, "There is no ReLU to look at.")
    sure = {n: share - 2 * (0.25 * 0.75 / dead[n].size) ** 0.5 for n, share in shares.items()}
    name = max(sure, key=sure.__getitem__)
    verdict = graded(sure[name], 0.25, 0.5)
    problems: tuple[Problem, ...] = ()
    if verdict:
        advice = f"{note} {shares[name]:.0%} of {name}: lower the rate, or use a leaky ReLU."
        problems = (Problem("dead", verdict, advice),)
    return Finding("dead_units", figures, note, problems)


def _by_position(measured: dict[str, Any]) -> list[str]:
    """The names in order of depth: JAX gives dicts back sorted as words."""
    return sorted(measured, key=lambda n: -1 if n == "input" else int(n.split(" ", 1)[0]))
