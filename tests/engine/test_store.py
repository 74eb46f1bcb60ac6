"""The store: what is recorded stays, verdicts are final, the best states are kept."""

from __future__ import annotations

import math
import sqlite3

import numpy as np
import pytest

from jdl.engine import checkpoint, store
from jdl.engine.store import Ended, Store, StoreError


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
