"""The snapshot of an unfinished run, which is one file with its lanes and their turn."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jdl.engine import checkpoint
from jdl.engine.journal import Journal
from jdl.engine.schedule import Schedule

FREE = -1
SNAPSHOT = "lanes.safetensors"


class Snapshot(NamedTuple):
    """Lanes after a turn.

    Attributes:
      turn: its number.
      arrays: what the executor saved, by path.
      seats: the trial in each lane (-1 for none) and its reports, by row.
      aside: reports of each trial whose state is put aside.
    """

    turn: int
    arrays: Mapping[str, np.ndarray]
    seats: Mapping[int, list[tuple[int, int]]]
    aside: Mapping[int, int]


def take(s: Schedule, arrays: Mapping[str, np.ndarray]) -> Snapshot:
    """The snapshot of a schedule, with the arrays that the executor saved."""
    seats = {
        number: [(seat.queued.trial, seat.done) if seat else (FREE, 0) for seat in row.seats]
        for number, row in enumerate(s.rows)
        if number in held(s)
    }
    back = [paused for group in s.returning.values() for paused in group]
    aside = {paused.queued.trial: paused.done for paused in (*s.waiting.values(), *back)}
    return Snapshot(s.turn, arrays, seats, aside)


def held(s: Schedule) -> list[int]:
    """The rows that hold a trial."""
    return [number for number, row in enumerate(s.rows) if row.free < len(row.seats)]


def check(s: Schedule, snapshot: Snapshot) -> None:
    """Checks that a schedule and a snapshot have the same trials in the same lanes.

    Raises:
      CheckpointError: they differ, so the journal is not that of the snapshot.
    """
    if take(s, {}).seats != snapshot.seats:
        raise checkpoint.CheckpointError(
            f"{SNAPSHOT} and run.sqlite have trials in different lanes. Delete {SNAPSHOT} to go "
            "on: recorded results stay, and trials that were running start again."
        )


def write(journal: Journal, snapshot: Snapshot) -> None:
    """Writes a snapshot to the run's folder, atomically.

    Raises:
      OSError: the folder cannot be written; the previous snapshot stays.
    """
    assert journal.folder is not None
    notes = {
        "run": journal.notes()["run"],
        "turn": snapshot.turn,
        "seats": list(snapshot.seats.items()),
        "aside": list(snapshot.aside.items()),
    }
    # The records that the snapshot relies on must survive a crash of the machine.
    journal.sync()
    blob = checkpoint.to_bytes(snapshot.arrays, notes)
    checkpoint.write_atomically(journal.folder / SNAPSHOT, blob)
    journal.note(checkpoint=snapshot.turn)


def read(journal: Journal) -> Snapshot | None:
    """The folder's snapshot, or None if it has none.

    Raises:
      CheckpointError: it is damaged, belongs to another run than the database, or
        is from a later turn; the message says what to do.
    """
    path = None if journal.folder is None else journal.folder / SNAPSHOT
    if path is None or not path.exists():
        return None
    try:
        arrays, notes = checkpoint.from_bytes(path.read_bytes(), os.fspath(path))
        check_owner(journal, path, notes)
    except checkpoint.CheckpointError as error:
        raise checkpoint.CheckpointError(
            f"{error} Delete {SNAPSHOT} to go on: recorded results stay, and trials that were "
            "running start again from their beginning."
        ) from error
    return Snapshot(
        notes["turn"],
        arrays,
        {number: [(trial, done) for trial, done in seats] for number, seats in notes["seats"]},
        dict(notes["aside"]),
    )


def check_owner(journal: Journal, path: os.PathLike[str], notes: Mapping[str, Any]) -> None:
    """Checks that what was written with `notes` belongs to the run of the journal beside it.

    Args:
      journal: of the same folder.
      path: what was written.
      notes: with "run", its identity, and "turn", the last one before it was written.

    Raises:
      CheckpointError: it belongs to another run, or is from a later turn.
    """
    if notes["run"] != journal.notes()["run"]:
        raise checkpoint.CheckpointError(
            f"{path} belongs to another run than run.sqlite beside it."
        )
    if notes["turn"] > (last := journal.last_turn()):
        raise checkpoint.CheckpointError(
            f"{path} was written after turn {notes['turn']}, but run.sqlite beside it ends "
            f"with turn {last}: it is an older copy."
        )


def lanes_by_trial(snapshot: Snapshot) -> dict[int, tuple[int, dict[str, np.ndarray]]]:
    """The reports made and the saved lane of each unfinished trial."""
    found = {}
    for number, seats in snapshot.seats.items():
        prefix = f"row|{number}|lanes|"
        lanes = {
            path.removeprefix(prefix): array
            for path, array in snapshot.arrays.items()
            if path.startswith(prefix)
        }
        for lane, (trial, done) in enumerate(seats):
            if trial != FREE:
                found[trial] = done, {path: np.array(a[lane]) for path, a in lanes.items()}
    for trial, done in snapshot.aside.items():
        prefix = f"aside|{trial}|"
        found[trial] = (
            done,
            {
                path.removeprefix(prefix): array
                for path, array in snapshot.arrays.items()
                if path.startswith(prefix)
            },
        )
    return found
