"""Reading a learning curve: what the losses of a run, report by report, say of it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from jdl.diagnose.finding import Finding, Problem

_MOST = 200


def read_curve(
    curves: Mapping[str, Any],
    *,
    chance: float | None = None,
    short: bool = False,
) -> Finding:
    """What a run's curves say: good, badly started, over- or underfitted, diverged, stalled.

    Args:
      curves: by name, "train_loss" and if there is one "valid_loss", each one
        value a report, evenly spaced, as `sweep` results and `train.fit` give them.
        At least four reports; fewer are called fine.
      chance: the loss of knowing nothing, as `log(classes)`; None takes the
        first.
      short: whether the run was too short to learn in; that little is learnt
        is then no fault, and "underfit" and "plateau" are left out.

    Kinds, the first that fits:
    "diverged" (wrong): a loss that is not finite, or that ends above 1.5 times its first.
    "flat_start" (suspicious): the first fifth of the run changes the loss by less than
    a fiftieth of what the run does in all, and then it falls: a bad initialisation.
    "underfit": the training loss ends above 90 % of `chance` (wrong) or above
    60 % with no more progress (suspicious): a higher rate, a larger model, less
    regularisation.
    "overfit" (suspicious): the validation loss ends 25 % above its least, which it had
    in the first 70 % of at least eight reports, and above the training loss by
    as much: regularise, stop early, get data.
    "unlike_training": the training loss falls, but the validation loss ends above 1.5
    times `chance` (suspicious), above 4 times or not finite (wrong).
    "plateau" (suspicious): the last third changes the training loss by less than
    1 % of `chance` while it is above a tenth of it: lower the rate late.

    Source: CS231n, "Babysitting the learning process"; Karpathy (2019).
    """
    train = _smooth(np.asarray(curves["train_loss"], np.float64))
    valid = np.asarray(curves["valid_loss"], np.float64) if "valid_loss" in curves else None
    figures: dict[str, Any] = {"reports": len(train)}
    raw = np.asarray(curves["train_loss"], np.float64)
    if len(raw) < 4:
        return Finding("read_curve", figures, f"{len(raw)} reports are too few to read.")
    start = float(raw[np.isfinite(raw)][0]) if np.isfinite(raw).any() else np.nan
    chance = start if chance is None else chance
    end = float(train[-1])
    figures |= {"first": start, "last": end, "chance": chance}
    note = f"The training loss goes from {start:.3g} to {end:.3g}"
    if valid is not None and len(valid) > 1:
        least = float(np.nanmin(valid)) if np.isfinite(valid).any() else np.nan
        figures |= {"valid_last": float(valid[-1]), "valid_least": least}
        note += f", the validation loss to {valid[-1]:.3g}, {least:.3g} at its least"

    def found(kind: str, verdict: str, advice: str) -> Finding:
        return Finding("read_curve", figures, f"{note}.", (Problem(kind, verdict, advice),))

    finite = np.isfinite(raw)
    if not finite.all():
        at = int(np.argmin(finite))
        return found(
            "diverged",
            "wrong",
            f"The training loss is not finite from report {at + 1} of {len(raw)} on: lower the "
            "rate, warm it up, or clip gradients.",
        )
    if end > 1.5 * max(start, 1e-30) and end > chance:
        return found(
            "diverged", "wrong", f"{note}: it grows. Lower the rate, warm it up, or clip gradients."
        )
    fifth = max(1, len(train) // 5)
    fall = start - end
    early = float(np.max(np.abs(train[: fifth + 1] - train[0])))
    figures["early_share"] = early / max(abs(fall), 1e-30)
    if len(train) >= 10 and fall > 0.2 * chance and early < 0.02 * fall:
        return found(
            "flat_start",
            "suspicious",
            f"{note}, but the first fifth of the run changes it by {early:.2g} only: a bad "
            "initialisation is the prime suspect. Keep the variance (he_normal, lecun_normal).",
        )
    third = max(1, len(train) // 3)
    late = float(np.max(train[-third:]) - np.min(train[-third:]))
    figures["late_change"] = late
    if end > 0.9 * chance and not short:
        return found(
            "underfit",
            "wrong",
            f"{note}, where knowing nothing costs {chance:.3g}: nothing is learnt. Try to learn a "
            "few examples by heart first, then another rate or a larger model.",
        )
    if end > 0.6 * chance and late < 0.02 * chance and not short:
        return found(
            "underfit",
            "suspicious",
            f"{note}, and no longer falls, where knowing nothing costs {chance:.3g}: a larger "
            "model, a higher rate or less regularisation.",
        )
    if valid is not None and len(valid) >= 8:
        last = float(np.mean(valid[-max(2, len(valid) // 10) :]))
        rose = int(np.nanargmin(valid)) < 0.7 * len(valid)
        if rose and last > 1.25 * least and last - end > 0.25 * max(end, 0.02 * chance):
            return found(
                "overfit",
                "suspicious",
                f"{note}: it has been rising while the training loss fell. Stop early, regularise "
                "(L2, dropout, augmentation), or get more data.",
            )
    if valid is not None and len(valid) > 1 and not float(valid[-1]) <= 1.5 * chance:
        return found(
            "unlike_training",
            "suspicious" if valid[-1] <= 4 * chance else "wrong",
            f"{note}, where knowing nothing costs {chance:.3g}: the validation split is not like "
            "the training split. Compare their scaling and their labels.",
        )
    if late < 0.01 * chance and end > 0.1 * chance and not short:
        return found(
            "plateau",
            "suspicious",
            f"{note}, and the last third changes it by {late:.2g} only: lower the rate there (a "
            "schedule), or stop.",
        )
    return Finding("read_curve", figures, f"{note}.")


def _smooth(loss: np.ndarray) -> np.ndarray:
    """Means of blocks, so that a loss of every step becomes one of at most 200 reports."""
    if len(loss) <= _MOST:
        return loss
    edges = np.linspace(0, len(loss), _MOST // 4 + 1).astype(int)
    return np.array([loss[a:b].mean() for a, b in itertools.pairwise(edges)])
