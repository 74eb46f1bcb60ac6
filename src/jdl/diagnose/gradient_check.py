"""Autodiff against finite differences, leaf by leaf, in float64."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl import tree
from jdl.diagnose.finding import Finding, Problem, graded
from jdl.diagnose.subject import compiled, first, length, objective
from jdl.engine.trial import Batch, Trial, params_of

STEP = 1e-5  # of a central difference: truncation h**2 and rounding 1e-16 / h are both small


def gradient_check(
    trial: Trial,
    batch: Batch,
    *,
    key: Any,
    examples: int = 8,
    entries: int = 6,
    method: str = "auto",
) -> Finding:
    """Whether the derivative that autodiff gives is that of what is computed.

    In float64, for each parameter leaf, in `entries` entries and in one random
    direction through all of the leaf:

        numeric = (f(w + h e) - f(w - h e)) / 2h             error |a - n| / max(|a|, |n|)

    The one-sided slopes `(f(w + h e) - f(w))/h` and `(f(w) - f(w - h e))/h`
    differ by about `h f''` where `f` is smooth. Where they differ by more, a
    ReLU or a maximum changes sides within `h`; such entries are counted as
    kinks and set aside, as is a direction. So are those where a step of `4 h`
    gives another slope: the program rounds to float32 inside, or bends.

    Where all of the program accepts complex numbers, the complex step `Im f(w + i h e) / h`
    with `h = 1e-30`, which has no rounding from a difference, is taken as well,
    and kept if it agrees with the central difference to 1e-4.

    Args:
      trial: its `objective` is differentiated, or else the evaluated loss, by
        the parameters of a fresh state.
      batch: some examples, of which the first `examples` are taken: fewer
        examples have fewer kinks.
      key: of initialisation, of the directions, and of dropout, whose mask is held.
      examples: at most.
      entries: of each leaf.
      method: "central", "complex", or "auto".

    Kinds: "wrong_gradient": the relative error of a leaf is above 1e-2
    (wrong) or 1e-4 (suspicious). "detached": autodiff says exactly 0 of a leaf
    that does change the value (wrong).

    Raises:
      ValueError: `method` is none of these.

    Sources: CS231n, "Gradient checks", whose scale of relative errors this is; Squire and Trapp
    (1998), Using complex variables to estimate derivatives of real functions.
    """
    if method not in ("auto", "central", "complex"):
        raise ValueError(f"`method` must be 'auto', 'central' or 'complex', got {method!r}.")
    batch = first(batch, min(examples, length(batch)))

    @compiled
    def start(key: Any) -> Any:
        init, run, draw = jax.random.split(key, 3)
        return trial.init(init, batch), run, jax.random.key_data(draw)

    state, run, draw = start(key)
    # Types that meet only because of the widening are no fault of the trial's.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        state, batch = jax.tree.map(_wide, (state, jax.tree.map(jnp.asarray, batch)))
        figures = _compare(trial, state, batch, run, draw, entries, method)
    return _judge(figures)


def _wide(leaf: Any) -> Any:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    return jnp.asarray(np.asarray(leaf, np.float64))


def _compare(
    trial: Trial, state: Any, batch: Batch, run: Any, draw: Any, entries: int, method: str
) -> dict[str, Any]:
    params = params_of(state)
    value = objective(trial)
    leaves, structure = jax.tree.flatten(params)
    names = [*tree.named_leaves(params)]
    chosen = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    random = np.random.default_rng(np.asarray(draw).ravel().tolist())

    # Directions: for each leaf one through all of it, then single entries.
    whose, where, flat = [], [], []
    sizes = [int(leaves[i].size) for i in chosen]
    for position, size in enumerate(sizes):
        direction = random.normal(size=size)
        whose.append(position)
        where.append(-1)
        flat.append((np.arange(size), direction / np.linalg.norm(direction)))
        for index in random.choice(size, min(entries, size), replace=False):
            whose.append(position)
            where.append(int(index))
            flat.append((np.array([index]), np.ones(1)))
    offsets = np.cumsum([0, *sizes])
    whole = np.concatenate([np.asarray(leaves[i]).reshape(-1) for i in chosen])

    def f(vector: Any) -> Any:
        parts = list(leaves)
        for position, i in enumerate(chosen):
            part = vector[offsets[position] : offsets[position + 1]]
            parts[i] = part.reshape(leaves[i].shape)
        return value(jax.tree.unflatten(structure, parts), state, batch, run)

    directions = np.zeros((len(whose), int(offsets[-1])))
    for row, (position, (at, amount)) in enumerate(zip(whose, flat)):
        directions[row, offsets[position] + at] = amount

    @compiled
    def central(vector: Any, directions: Any) -> Any:
        base, gradient = jax.value_and_grad(f)(vector)

        def sides(direction: Any) -> Any:
            return jnp.stack([f(vector + s * STEP * direction) for s in (1, -1, 4, -4)])

        # One at a time: side by side, all perturbed networks would be in memory at once.
        pairs = jax.lax.map(sides, directions, batch_size=16)
        return base, directions @ gradient, pairs, gradient

    base, analytic, pairs, gradient = (np.asarray(a) for a in central(whole, directions))
    up, down = (pairs[:, 0] - base) / STEP, (base - pairs[:, 1]) / STEP
    numeric = (up + down) / 2
    # What a step four times as long says otherwise is not known: rounding to float32
    # inside the program, or a slope that bends.
    doubt = np.abs((pairs[:, 2] - pairs[:, 3]) / (8 * STEP) - numeric)
    scale = np.abs(numeric) + np.abs(analytic)
    largest = float(np.max(scale, initial=0.0))
    # A second derivative of a hundred times the slope is still smooth; a kink is far above.
    rounding = 1e-16 * max(abs(float(base)), 1.0) / STEP
    kink = doubt > 1e-3 * scale + 4 * rounding
    kink |= np.abs(up - down) > 1e-2 * scale + 4 * rounding + 1e-4 * largest
    used = "central"
    if method != "central":
        stepped = _complex_step(f, whole, directions)
        agrees = stepped is not None and bool(
            np.all((np.abs(stepped - numeric) <= 1e-4 * largest + 10 * rounding) | kink)
        )
        if stepped is not None and (agrees or method == "complex"):
            numeric, used = stepped, "complex"
            rounding = 1e-20 * largest
    # What is far below the largest slope is rounding of the difference, not a derivative.
    floor = max(1e-7 * largest, 1e5 * rounding, 1e-30)
    known = doubt if used == "central" else 0.0
    error = np.maximum(np.abs(analytic - numeric) - 2 * known, 0) / np.maximum(
        np.maximum(np.abs(analytic), np.abs(numeric)), floor
    )
    rows: dict[str, Any] = {}
    for position, i in enumerate(chosen):
        mine = np.array(whose) == position
        ok = mine & ~kink
        part = gradient[offsets[position] : offsets[position + 1]]
        rows[names[i]] = {
            "error": float(error[ok].max(initial=0.0)),
            "kinks": int(kink[mine].sum()),
            "compared": int(ok.sum()),
            "autodiff_is_zero": bool((part == 0).all()),
            "numeric": float(np.abs(numeric[ok]).max(initial=0.0)),
            "sign": bool(np.any((analytic * numeric < 0) & ok & (error > 1.5))),
        }
    return {"leaves": rows, "method": used, "value": float(base), "floor": floor}


def _complex_step(f: Any, vector: Any, directions: np.ndarray) -> np.ndarray | None:
    """Derivatives along each direction, or None where the program takes no complex numbers."""
    tiny = 1e-30

    def one(direction: Any) -> Any:
        return jnp.imag(f(vector + 1j * tiny * direction)) / tiny

    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error")  # where a program drops an imaginary part, JAX warns
            out = jax.eval_shape(lambda v: f(v), jax.ShapeDtypeStruct(vector.shape, jnp.complex128))
            if not jnp.issubdtype(out.dtype, jnp.complexfloating):
                return None
            slopes = compiled(lambda d: jax.lax.map(one, d, batch_size=16))(directions)
    except (TypeError, ValueError, NotImplementedError, Warning):
        return None
    found = np.asarray(slopes)
    return found if np.isfinite(found).all() else None


def _judge(figures: dict[str, Any]) -> Finding:
    rows = figures["leaves"]
    problems = []
    if not np.isfinite(figures["value"]):
        note = "The value is not finite, so that there is no derivative to compare."
        return Finding("gradient_check", figures, note)
    detached = [
        name
        for name, row in rows.items()
        if row["autodiff_is_zero"] and row["numeric"] > 100 * figures["floor"]
    ]
    if detached:
        advice = (
            f"Autodiff gives {', '.join(detached[:4])} no gradient at all, but they change the "
            f"loss (slopes up to {max(rows[n]['numeric'] for n in detached):.2g}): something "
            "on the way stops it (stop_gradient, rounding, argmax)."
        )
        problems.append(Problem("detached", "wrong", advice))
    others = {name: row for name, row in rows.items() if name not in detached}
    if others:
        name = max(others, key=lambda n: others[n]["error"])
        if verdict := graded(others[name]["error"], 1e-4, 1e-2):
            bad = [n for n in others if others[n]["error"] > 1e-4]
            sign = " with the opposite sign" if others[name]["sign"] else ""
            advice = (
                f"The derivative by {name} is off by {others[name]['error']:.2g} relative to "
                f"finite differences{sign} (and {len(bad) - 1} more leaves): look at custom "
                "gradients (custom_vjp, custom_jvp) that it passes."
            )
            problems.append(Problem("wrong_gradient", verdict, advice))
    compared = sum(row["compared"] for row in rows.values())
    kinks = sum(row["kinks"] for row in rows.values())
    largest = max((row["error"] for row in rows.values()), default=0.0)
    note = (
        f"{compared} slopes agree with finite differences in float64 to {largest:.1g} "
        f"({figures['method']}; {kinks} at kinks or in doubt set aside)."
    )
    return Finding("gradient_check", figures, note, tuple(problems))
