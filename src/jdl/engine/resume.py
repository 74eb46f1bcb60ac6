"""What a run's folder holds of a run in the middle: the lanes, and where everybody was."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jdl.engine import checkpoint, store
from jdl.engine.group import FREE, Group, Queued, Saved

CHECKPOINT = "lanes.safetensors"


class Waiting(NamedTuple):
    """A trial without a lane, in the middle of its run."""

    group: Group
    queued: Queued
    saved: Saved
    score: float  # its last


class Point(NamedTuple):
    """A checkpoint as it is read: the state of a run after a turn."""

    turn: int
    rotation: list[str]  # labels of groups, in the order of their turns
    flying: list[str]  # those whose segment was not collected, oldest first
    groups: dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]]  # arrays, notes
    waiting: dict[int, tuple[str, Saved, float]]  # by trial
    returning: list[int]  # of the waiting, those that a lane may take


def write(
    db: store.Store,
    turn: int,
    rotation: Sequence[Group],
    flying: Sequence[Group],
    waiting: Mapping[int, Waiting],
) -> None:
    """Writes every lane, and every trial that waits, to the run's folder, atomically.

    Raises:
      OSError: the folder takes no more; the checkpoint before stays.
    """
    assert db.folder is not None
    arrays: dict[str, Any] = {}
    notes: dict[str, Any] = {}
    released = [q.trial for group in (*rotation, *flying) for q, _ in group.returning]
    aside = dict(waiting)
    for number, group in enumerate((*rotation, *flying)):
        leaves, notes[group.label] = group.snapshot()
        arrays |= {f"group|{number}|{path}": leaf for path, leaf in leaves.items()}
        for queued, saved in group.returning:
            aside[queued.trial] = Waiting(group, queued, saved, 0.0)
    for trial, one in aside.items():
        arrays |= {f"aside|{trial}|{path}": leaf for path, leaf in one.saved.leaves.items()}
    body = {
        "turn": turn,
        "rotation": [group.label for group in rotation],
        "flying": [group.label for group in flying],
        "groups": notes,
        "waiting": [[t, w.group.label, w.saved.reports, w.score] for t, w in aside.items()],
        "returning": released,
    }
    # What the checkpoint counts on must be there when the machine, too, goes down.
    db.sync()
    checkpoint.write_atomically(db.folder / CHECKPOINT, checkpoint.to_bytes(arrays, body))
    db.note(checkpoint=turn)


def read(db: store.Store) -> Point | None:
    """The folder's checkpoint, or None if it has none.

    Raises:
      CheckpointError: it is damaged; the message says what to do.
    """
    path = None if db.folder is None else db.folder / CHECKPOINT
    if path is None or not path.exists():
        return None
    try:
        leaves, body = checkpoint.from_bytes(path.read_bytes(), os.fspath(path))
    except checkpoint.CheckpointError as error:
        raise checkpoint.CheckpointError(
            f"{error} Delete that file to go on: recorded results stay, and trials that were "
            "running start again from their beginning."
        ) from error

    def part(prefix: str) -> dict[str, np.ndarray]:
        return {p[len(prefix) :]: leaf for p, leaf in leaves.items() if p.startswith(prefix)}

    return Point(
        body["turn"],
        body["rotation"],
        body["flying"],
        {
            label: (part(f"group|{number}|"), notes)
            for number, (label, notes) in enumerate(body["groups"].items())
        },
        {
            trial: (label, Saved(reports, part(f"aside|{trial}|")), score)
            for trial, label, reports, score in body["waiting"]
        },
        body["returning"],
    )


def by_trial(point: Point) -> dict[int, Saved]:
    """The trials in the middle, whatever lane they were in."""
    saved = {}
    for arrays, _ in point.groups.values():
        prefix = "lanes|"
        lanes = {p[len(prefix) :]: a for p, a in arrays.items() if p.startswith(prefix)}
        for lane, trial in enumerate(arrays.get("trial", ())):
            if trial != FREE:
                leaves = {path: np.array(a[lane]) for path, a in lanes.items()}
                saved[int(trial)] = Saved(int(arrays["done"][lane]), leaves)
    return saved
