"""What readers of a run's file are told, row by row; and what they find before it began."""

from __future__ import annotations

import numpy as np
import pytest

from jdl.engine import checkpoint
from jdl.engine.checkpoint import CheckpointError
from jdl.engine.events import DIVERGED, DONE, Ended, Exchanged, Record
from jdl.engine.journal import Journal

CONFIGS = [(4, {"lr": 0.5, "kind": "adam"}), (2, {"lr": 0.25, "kind": None}), (7, {})]


@pytest.fixture
def journal():
    opened = Journal(None)
    opened.begin({"steps": 40}, ["loss", "valid loss"], CONFIGS, plans={"": {"lanes": 3}})
    yield opened
    opened.close()


def test_before_a_run_began_there_is_nothing():
    empty = Journal(None)
    assert empty.specification() is None and empty.notes() == {} and empty.trials() == []
    assert empty.counts() == {} and empty.seats() == {} and empty.lineage() == []
    names, table = empty.reports()
    assert names == () and table.shape == (0, 2)
    assert empty.segments().shape == (0, 3) and empty.segments().dtype == np.int64
    assert empty.scores() == {} and empty.state(4) is None
    empty.close()


def test_trials_come_by_number_with_their_configurations(journal):
    assert journal.trials() == [
        (2, {"lr": 0.25, "kind": None}, "pending", 0, {}),
        (4, {"lr": 0.5, "kind": "adam"}, "pending", 0, {}),
        (7, {}, "pending", 0, {}),
    ]
    assert journal.config(4) == {"lr": 0.5, "kind": "adam"} and journal.config(3) == {}
    assert journal.specification() == {"steps": 40}
    run = journal.notes().pop("run")
    assert journal.notes() == {"plans": {"": {"lanes": 3}}, "run": run}


def test_turns_lanes_and_reports(journal):
    journal.append(Record(1, "segment", ((4, 1), (2, 0))), [(4, 10, 0.5, 0.25), (2, 10, 0.125, 3)])
    journal.append(
        Record(3, "segment", ((7, 1),), (Ended(4, DONE, 40, 0.5), Ended(2, DIVERGED, 23, 0.1))),
        [(4, 20, 0.75, None), (4, 30, 2.0, 1.5), (2, 20, 0.375, 6)],
        {4: {"test_loss": 0.875}},
    )
    assert journal.seats() == {4: (1, 1, 3), 2: (1, 0, 3), 7: (3, 1, None)}
    assert journal.segments().tolist() == [[1, 2, 1], [1, 4, 1], [3, 2, 1], [3, 4, 2]]
    names, table = journal.reports()
    assert names == ("loss", "valid loss") and table.dtype == np.float64
    np.testing.assert_array_equal(
        table,
        [
            [2, 10, 0.125, 3], [2, 20, 0.375, 6],
            [4, 10, 0.5, 0.25], [4, 20, 0.75, np.nan], [4, 30, 2.0, 1.5],
        ],
    )  # fmt: skip
    assert journal.counts() == {"running": 1, "done": 1, "diverged": 1}
    assert journal.trials()[1][2:] == ("done", 40, {"test_loss": 0.875})
    assert journal.trials()[0][2:] == ("diverged", 23, {})


def test_lineage_comes_by_trial_and_report(journal):
    one, two = Exchanged(4, 20, 2, {"lr": 0.75}), Exchanged(4, 10, 4, {"lr": 0.625})
    journal.append(Record(1, "segment", exchanged=(one, Exchanged(2, 30, 4, {}), two)))
    assert journal.lineage() == [Exchanged(2, 30, 4, {}), two, one]


def test_states_come_back_as_arrays(journal):
    blob = checkpoint.to_bytes({"w": np.float32([1.5, 2.5])})
    journal.append(Record(1, "segment"), states=[(4, 0.75, blob), (2, 0.5, blob[:-1])], keep=5)
    assert journal.scores() == {4: 0.75, 2: 0.5}
    (leaf,) = journal.state(4).values()
    np.testing.assert_array_equal(leaf, np.float32([1.5, 2.5]))
    with pytest.raises(CheckpointError, match="the state of trial 2 is not a readable checkpoint"):
        journal.state(2)
