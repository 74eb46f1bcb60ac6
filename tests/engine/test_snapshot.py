"""Snapshots: what they hold, whose lanes are whose, and which ones are refused and why."""

from __future__ import annotations

import numpy as np
import pytest
from tests.engine.by_hand import order, paused, row, schedule, seat

from jdl.engine import snapshot
from jdl.engine.checkpoint import CheckpointError
from jdl.engine.events import Record
from jdl.engine.journal import Journal
from jdl.engine.snapshot import SNAPSHOT, Snapshot

S = schedule(
    row(None, None),
    row(seat(4, 3), None, seat(5, 1), group="b"),
    row(seat(8, 2), group="c"),
    turn=7,
    waiting={9: paused(9, 2), 3: paused(3, 4)},
    returning={"a": (paused(6, 5),), "b": (paused(1, 1),)},
    flying=(order(1, {0: (8, 2)}, row=2),),
)
SEATS = {1: [(4, 3), (-1, 0), (5, 1)], 2: [(8, 2)]}
ARRAYS = {
    "row|1|lanes|x": np.float32([[1, 2], [3, 4], [5, 6]]),
    "row|1|lanes|y": np.int32([10, 20, 30]),
    "row|1|numbers|lr": np.float32([7, 8, 9]),
    "row|2|lanes|x": np.float32([[70, 80]]),
    "row|2|lanes|y": np.int32([40]),
    "aside|9|x": np.float32([90, 91]),
    "aside|9|y": np.int32(99),
    "aside|3|x": np.float32([30, 31]),
    "aside|6|x": np.float32([60, 61]),
    "aside|1|x": np.float32([10, 11]),
}


@pytest.fixture
def journal(tmp_path):
    opened = Journal(tmp_path / "run")
    opened.begin({"steps": 4}, ["loss"], [(4, {}), (5, {})])
    opened.append(Record(7, "segment", ((4, 0),)), [(4, 10, 0.5)])
    yield opened
    opened.close()


def test_it_holds_the_rows_with_trials_and_what_is_put_aside():
    assert snapshot.held(S) == [1, 2]
    assert snapshot.take(S, ARRAYS) == Snapshot(7, ARRAYS, SEATS, {9: 2, 3: 4, 6: 5, 1: 1})


def test_it_comes_back_from_the_folder(journal):
    assert snapshot.read(journal) is None
    snapshot.write(journal, snapshot.take(S, ARRAYS))
    back = snapshot.read(journal)
    assert (back.turn, back.seats, back.aside) == (7, SEATS, {9: 2, 3: 4, 6: 5, 1: 1})
    assert back.arrays.keys() == ARRAYS.keys()
    for path, array in ARRAYS.items():
        np.testing.assert_array_equal(back.arrays[path], array)
        assert back.arrays[path].dtype == array.dtype
    assert journal.notes()["checkpoint"] == 7
    assert sorted(path.name for path in journal.folder.iterdir() if "lanes" in path.name) == [
        SNAPSHOT
    ]
    snapshot.check(S, back)


def test_a_run_in_memory_has_none():
    opened = Journal(None)
    assert snapshot.read(opened) is None
    opened.close()


def test_trials_that_sit_elsewhere_are_noticed():
    other = schedule(*S.rows[:2], row(seat(8, 3), group="c"))
    with pytest.raises(CheckpointError, match=r"and run\.sqlite have trials in different lanes"):
        snapshot.check(other, snapshot.take(S, {}))


def test_the_snapshot_of_another_run_is_refused(journal, tmp_path):
    snapshot.write(journal, snapshot.take(S, ARRAYS))
    other = Journal(tmp_path / "other")
    other.begin({"steps": 4}, ["loss"], [(4, {}), (5, {})])
    (journal.folder / SNAPSHOT).rename(other.folder / SNAPSHOT)
    with pytest.raises(
        CheckpointError,
        match=r"lanes.safetensors belongs to another run than run.sqlite beside it. "
        r"Delete lanes.safetensors to go on: recorded results stay, and trials",
    ):
        snapshot.read(other)
    other.close()


def test_a_snapshot_that_is_newer_than_the_database_is_refused(journal):
    for turn in (7, 8):
        snapshot.write(journal, snapshot.take(S._replace(turn=turn), ARRAYS))
        if turn == 7:
            assert snapshot.read(journal).turn == 7
    with pytest.raises(
        CheckpointError,
        match=r"was written after turn 8, but run.sqlite beside it ends with turn 7: it is an "
        r"older copy. Delete lanes.safetensors",
    ):
        snapshot.read(journal)


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_snapshot_is_refused(journal, damage):
    snapshot.write(journal, snapshot.take(S, ARRAYS))
    path = journal.folder / SNAPSHOT
    blob = bytearray(path.read_bytes())
    if damage == "cut":
        del blob[-9:]
    else:
        blob[-1] ^= 1
    path.write_bytes(blob)
    with pytest.raises(CheckpointError, match=r"safetensors is (not a readable|corrupt).* Delete"):
        snapshot.read(journal)


def test_a_folder_that_takes_no_more_keeps_the_snapshot_before(journal, monkeypatch):
    snapshot.write(journal, snapshot.take(S, ARRAYS))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        snapshot.write(journal, snapshot.take(S._replace(turn=8), {}))
    assert snapshot.read(journal).turn == 7 and journal.notes()["checkpoint"] == 7


def test_each_trial_finds_its_lane():
    found = snapshot.lanes_by_trial(snapshot.take(S, ARRAYS))
    expected = {
        4: (3, {"x": [1, 2], "y": 10}),
        5: (1, {"x": [5, 6], "y": 30}),
        8: (2, {"x": [70, 80], "y": 40}),
        9: (2, {"x": [90, 91], "y": 99}),
        3: (4, {"x": [30, 31]}),
        6: (5, {"x": [60, 61]}),
        1: (1, {"x": [10, 11]}),
    }
    lanes = {
        trial: (done, {path: leaf.tolist() for path, leaf in leaves.items()})
        for trial, (done, leaves) in found.items()
    }
    assert lanes == expected
    assert found[4][1]["y"].dtype == np.int32
