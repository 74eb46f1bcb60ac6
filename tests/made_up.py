"""Results of sweeps that never ran, whose every number is known."""

from __future__ import annotations

import math

import numpy as np

from jdl import sweep
from jdl.sweep.records import Lanes, TrialResult
from jdl.sweep.results import Results

REPORTS, EVERY = 16, 10
SPACE = {
    "optimizer": sweep.choice("sgd", "momentum", "adam"),
    "lr": sweep.log_uniform(1e-4, 1.0),
    "mu": sweep.when("optimizer", "momentum", sweep.uniform(0.5, 0.99)),
    "dropout": sweep.uniform(0.0, 0.5),
    "width": sweep.choice(32, 64, 128, static=True),
    "useless": sweep.uniform(-1.0, 1.0),
    "seed": sweep.seeds(2),
}


def accuracy(config, report):
    """Best at a rate of 0.02 and no dropout; the rest hardly matters."""
    distance = math.log10(config["lr"] / 0.02)
    top = 0.97 * math.exp(-0.25 * distance**2) - 0.15 * config["dropout"]
    top -= 0.05 * (config.get("optimizer", "adam") == "sgd")
    return 0.1 + max(0.0, top - 0.1) * (1 - math.exp(-0.4 * report))


def made_up(count=100, space=None, stopping=True, diverged_above=0.3, lanes=8, **changed):
    """A sweep of `count` random trials in `lanes` lanes; halving at reports 1, 4 and 16 of 16.

    Args:
      count: trials.
      space: what varies; it has "lr" and "dropout".
      stopping: whether the worse three quarters of a rung stop there.
      diverged_above: the rate above which a trial diverges in its third report.
      lanes: trials side by side, of each program.
      changed: entries of the specification.
    """
    space = space or SPACE
    configs = sweep.random_search(space, count, seed=1).ask(count)
    noise = np.random.default_rng(5).normal(0, 0.004, (count, REPORTS))
    full = np.array([[accuracy(c, r + 1) for r in range(REPORTS)] for c in configs]) + noise
    length = np.full(count, REPORTS)
    failed = np.array([c["lr"] > diverged_above for c in configs])
    length[failed] = 2
    if stopping:
        for rung in (1, 4):
            here = np.flatnonzero((length > rung) & ~failed)
            if here.size:
                cut = np.quantile(full[here, rung - 1], 0.75)
                length[here[full[here, rung - 1] < cut]] = rung
    curves = np.where(np.arange(REPORTS) < length[:, None], full, np.nan)
    loss = np.where(np.isfinite(curves), -np.log(np.clip(curves, 1e-3, 0.999)), np.nan)
    trials = []
    for i, config in enumerate(configs):
        ended = "done" if length[i] == REPORTS else "stopped"
        status = "diverged" if failed[i] else ended
        last = length[i] - 1
        metrics = {"valid_accuracy": float(curves[i, last]), "valid_loss": float(loss[i, last])}
        if status == "done":
            metrics["test_accuracy"] = metrics["valid_accuracy"] - 0.01
        trials.append(TrialResult(i, config, status, int(length[i]) * EVERY, metrics))
    specification = {
        "space": sweep.to_json(space),
        "metric": "valid_accuracy",
        "goal": "max",
        "steps": REPORTS * EVERY,
        "report_every": EVERY,
        "stopping": "asha(4, 1)" if stopping else None,
        **changed,
    }
    named = {"valid_accuracy": curves, "valid_loss": loss}
    parsed = sweep.parse_space(space)
    statics = [name for name, d in parsed.items() if d.static]
    programs = {}
    for i, config in enumerate(configs):
        programs.setdefault(tuple(config.get(name) for name in statics), []).append(i)
    of, segments = {}, []
    for members in programs.values():
        seat(members, length, lanes, of, segments)
    seats = Lanes(of, np.array(segments, int).reshape(-1, 3))
    return Results(specification, trials, named, {}, None, seats)


def seat(waiting, length, lanes, of, segments):
    """Seats one program's trials: a free lane takes the next trial, one report a turn."""
    free, running, waiting = list(range(lanes)), {}, list(waiting)
    turn = segments[-1][0] + 1 if segments else 0
    while waiting or running:
        while waiting and free:
            of[waiting[0]] = free.pop(0)
            running[waiting[0]] = int(length[waiting[0]])
            waiting.pop(0)
        for trial in list(running):
            segments.append((turn, trial, 1))
            running[trial] -= 1
            if not running[trial]:
                del running[trial]
                free.append(of[trial])
        free.sort()
        turn += 1
