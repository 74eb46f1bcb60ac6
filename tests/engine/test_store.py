"""The store: what is recorded stays, verdicts are final, the best states are kept."""

from __future__ import annotations

import math
import sqlite3

import numpy as np
import pytest

from jdl.engine import checkpoint, store
from jdl.engine.database import StoreError
from jdl.engine.store import Ended, Store


def blob(value):
    return checkpoint.to_bytes({"w": np.float32(value)})


@pytest.fixture(params=["memory", "folder"])
def db(request, tmp_path):
    opened = Store(None if request.param == "memory" else tmp_path / "run")
    opened.begin({"steps": 4}, ["loss"])
    opened.add_trials([(i, {"lr": 0.1 * i}) for i in range(4)])
    yield opened
    opened.close()


def test_a_verdict_is_final(db):
    db.record([(1, 2, 0.5)], [Ended(1, store.DONE, 4, {"test_loss": 0.3})], [(1, 0)])
    db.record([], [Ended(1, store.DIVERGED, 2, {})], [(1, 0)])
    assert db.trials()[1] == (1, {"lr": 0.1}, "done", 4, {"test_loss": 0.3})
    assert [row[2] for row in db.trials()] == ["pending", "done", "pending", "pending"]


def test_a_report_made_again_replaces_itself(db):
    db.record([(0, 2, 0.5), (0, 4, 0.25)], [], [(0, 0)])
    db.record([(0, 4, 0.25), (2, 2, math.nan)], [], [])
    names, table = db.reports()
    assert names == ("loss",)
    np.testing.assert_array_equal(table, [[0, 2, 0.5], [0, 4, 0.25], [2, 2, np.nan]])


def test_the_best_states_are_kept(db):
    scores = [0.3, 0.9, 0.1, 0.9]
    for trial, score in enumerate(scores):
        db.record([], [], [], [(trial, score, blob(score))], keep=2)
    assert db.scores() == {1: 0.9, 3: 0.9}
    assert db.state(1)["w"] == np.float32(0.9)
    assert db.state(0) is None


def test_a_failed_transaction_leaves_nothing(db):
    with pytest.raises(sqlite3.Error):
        db.record([(0, 2, 0.5), (0, 4)], [Ended(0, store.DONE, 4, {})], [(0, 0)])
    assert len(db.reports()[1]) == 0
    assert db.trials()[0][2] == "pending"


def test_a_reader_beside_the_writer(tmp_path):
    writer = Store(tmp_path)
    writer.begin({"steps": 4}, ["loss"])
    writer.add_trials([(0, {})])
    reader = Store(tmp_path, write=False)
    writer.record([(0, 2, 0.5)], [], [(0, 0)])
    assert reader.trials()[0][2] == "running"
    assert len(reader.reports()[1]) == 1
    reader.close()
    writer.close()


def test_differences_are_named_by_their_path(tmp_path):
    one = Store(tmp_path)
    one.begin({"space": {"lr": {"uniform": [0, 1]}, "b": 1}, "seed": 0}, ["loss"])
    with pytest.raises(StoreError) as error:
        one.begin({"space": {"lr": {"uniform": [0, 2]}}, "seed": 0}, ["loss"])
    text = str(error.value)
    assert "  space.lr.uniform: [0, 1] there, [0, 2] now" in text
    assert "  space.b: 1 there, nothing now" in text
    assert "seed" not in text
    one.close()


def test_another_make_trial_is_named_as_such(tmp_path):
    one = Store(tmp_path)
    one.begin({"programs": {"optimizer=adam": "abc", "": "def"}, "space": 1}, ["loss"])
    with pytest.raises(StoreError) as error:
        one.begin({"programs": {"optimizer=adam": "abd", "": "deg"}, "space": 1}, ["loss"])
    text = str(error.value)
    assert "  make_trial for optimizer=adam: computes something else now" in text
    assert "  make_trial: computes something else now" in text and "abc" not in text
    one.close()


def test_back_to_an_earlier_turn(db):
    """Reports, ends, copies and settling up to the turn stay; what was asked for in it goes."""
    db.record([(0, 2, 0.5), (1, 2, 0.4)], [], [(0, 0), (1, 1)], turn=1)
    db.add_trials([(4, {"lr": 1.0})], turn=1, wanted=3)
    db.record([], [Ended(1, store.STOPPED, 2, {})], turn=2, event="settle")
    db.add_trials([(5, {"lr": 2.0})], turn=2, wanted=1)
    db.record(
        [(0, 4, 0.3)],
        [Ended(0, store.DONE, 4, {"test_loss": 0.2}), Ended(2, store.STOPPED, 0, {})],
        [(4, 1)],
        [(0, 0.3, blob(1)), (1, 0.4, blob(2))],
        keep=2,
        turn=3,
        bred=[store.Bred(0, 2, 4, {"lr": 0.5})],
    )
    db.roll_back(2)
    status = {trial: status for trial, _, status, _, _ in db.trials()}
    assert status == {0: "running", 1: "stopped", 2: "pending", 3: "pending", 4: "pending"}
    assert db.reports()[1][:, :2].tolist() == [[0, 2], [1, 2]]
    assert db.lineage() == [] and db.scores() == {1: 0.4} and db.last_turn() == 2
    turns = [(t.turn, t.reports, t.ended, t.events) for t in db.history("loss")]
    assert turns == [
        (1, [(0, 2, 0.5), (1, 2, 0.4)], [], [("ask", 3)]),
        (2, [], [(1, "stopped")], [("settle", 0)]),
    ]
    assert db.seats() == {0: (1, 0, None), 1: (1, 1, 2)}
    assert db.ended().tolist() == [1]


def test_trials_that_start_again(db):
    db.record([(0, 2, 0.5), (1, 2, 0.4)], [Ended(1, store.DONE, 2, {})], [(0, 0), (1, 1)], turn=1)
    db.forget_running()
    assert db.reports()[1].tolist() == [[1, 2, 0.4]]
    assert db.counts() == {"pending": 3, "done": 1}
    assert db.config(2) == {"lr": 0.2} and db.config(9) == {}


def test_a_folder_is_read_where_nothing_can_be_written(tmp_path):
    writer = Store(tmp_path)
    writer.begin({"steps": 4}, ["loss"])
    writer.add_trials([(0, {})])
    writer.close()
    for file in ("run.sqlite-wal", "run.sqlite-shm"):
        assert not (tmp_path / file).exists()
    reader = Store(tmp_path, write=False)
    assert len(reader.trials()) == 1
    with pytest.raises(StoreError, match="cannot be written: attempt to write a readonly"):
        reader.add_trials([(1, {})])
    reader.close()
