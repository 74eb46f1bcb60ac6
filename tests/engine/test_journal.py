"""The journal: what is written stays, verdicts are final, the best states are kept."""

from __future__ import annotations

import contextlib
import math
import re
import sqlite3

import numpy as np
import pytest

from jdl.engine import checkpoint
from jdl.engine.database import StoreError
from jdl.engine.events import DIVERGED, DONE, STOPPED, Ended, Exchanged, Record
from jdl.engine.journal import Journal, recorded_plans
from jdl.engine.tables import Tables

CONFIGS = [(i, {"lr": 0.1 * i}) for i in range(4)]


def turn(number, *ended, started=(), kind="segment", exchanged=()):
    ends = tuple(Ended(trial, status, steps, 0.0) for trial, status, steps in ended)
    return Record(number, kind, tuple(started), ends, tuple(exchanged))


def blob(value):
    return checkpoint.to_bytes({"w": np.float32(value)})


@pytest.fixture(params=["memory", "folder"])
def journal(request, tmp_path):
    opened = Journal(None if request.param == "memory" else tmp_path / "run")
    opened.begin({"steps": 4}, ["loss"], CONFIGS)
    yield opened
    opened.close()


def test_a_verdict_is_final(journal):
    tests = {1: {"test_loss": 0.3}}
    journal.append(turn(1, (1, DONE, 4), started=[(1, 0)]), [(1, 2, 0.5)], tests)
    journal.append(turn(2, (1, DIVERGED, 2), started=[(1, 0)]))
    assert journal.trials()[1] == (1, {"lr": 0.1}, "done", 4, {"test_loss": 0.3})
    assert [row[2] for row in journal.trials()] == ["pending", "done", "pending", "pending"]


def test_a_report_made_again_replaces_itself(journal):
    journal.append(turn(1, started=[(0, 0)]), [(0, 2, 0.5), (0, 4, 0.25)])
    journal.append(turn(2), [(0, 4, 0.25), (2, 2, math.nan)])
    names, table = journal.reports()
    assert names == ("loss",)
    np.testing.assert_array_equal(table, [[0, 2, 0.5], [0, 4, 0.25], [2, 2, np.nan]])


def test_the_best_states_are_kept(journal):
    for trial, score in enumerate([0.3, 0.9, 0.1, 0.9]):
        journal.append(turn(trial + 1), states=[(trial, score, blob(score))], keep=2)
    assert journal.scores() == {1: 0.9, 3: 0.9}
    assert journal.state(1)["w"] == np.float32(0.9)
    assert journal.state(0) is None


def test_a_failed_transaction_leaves_nothing(journal):
    with pytest.raises(sqlite3.Error):
        journal.append(turn(1, (0, DONE, 4), started=[(0, 0)]), [(0, 2, 0.5), (0, 4)])
    assert len(journal.reports()[1]) == 0
    assert journal.trials()[0][2] == "pending"


def test_the_first_write_is_whole_or_not_there(tmp_path):
    """A run that cannot write its first trials has not begun."""
    journal = Journal(tmp_path)
    with pytest.raises(sqlite3.IntegrityError):
        journal.begin({"steps": 4}, ["loss"], [(0, {}), (0, {})])
    assert journal.specification() is None and journal.trials() == []
    assert journal.begin({"steps": 4}, ["loss"], CONFIGS, plans={"": {"lanes": 3}}) is False
    assert journal.begin({"steps": 4}, ["loss"], CONFIGS) is True
    assert len(journal.notes()["run"]) == 32
    assert recorded_plans(tmp_path) == {"": {"lanes": 3}}  # while it runs, too
    journal.close()
    assert recorded_plans(tmp_path / "elsewhere") == recorded_plans(None) == {}


def test_a_reader_beside_the_writer(tmp_path):
    writer = Journal(tmp_path)
    writer.begin({"steps": 4}, ["loss"], [(0, {})])
    reader = Tables(tmp_path, write=False)
    writer.append(turn(1, started=[(0, 0)]), [(0, 2, 0.5)])
    assert reader.trials()[0][2] == "running"
    assert len(reader.reports()[1]) == 1
    reader.close()
    writer.close()


def test_differences_are_named_by_their_path(tmp_path):
    one = Journal(tmp_path)
    one.begin({"space": {"lr": {"uniform": [0, 1]}, "b": 1}, "seed": 0}, ["loss"], [])
    with pytest.raises(StoreError) as error:
        one.begin({"space": {"lr": {"uniform": [0, 2]}}, "seed": 0}, ["loss"], [])
    text = str(error.value)
    assert "  space.lr.uniform: [0, 1] there, [0, 2] now" in text
    assert "  space.b: 1 there, nothing now" in text
    assert "seed" not in text
    one.close()


def test_another_make_trial_is_named_as_such(tmp_path):
    one = Journal(tmp_path)
    one.begin({"programs": {"optimizer=adam": "abc", "": "def"}, "space": 1}, ["loss"], [])
    with pytest.raises(StoreError) as error:
        one.begin({"programs": {"optimizer=adam": "abd", "": "deg"}, "space": 1}, ["loss"], [])
    text = str(error.value)
    assert "  make_trial for optimizer=adam computes something else now" in text
    assert "  make_trial computes something else now" in text and "abc" not in text
    one.close()


def test_back_to_an_earlier_turn(journal):
    """Reports, ends, copies and settling up to the turn stay; what was asked for in it goes."""
    journal.append(turn(1, started=[(0, 0), (1, 1)]), [(0, 2, 0.5), (1, 2, 0.4)])
    journal.asked(1, 3, [(4, {"lr": 1.0})])
    journal.append(turn(2, (1, STOPPED, 2), kind="settle"))
    journal.asked(2, 1, [(5, {"lr": 2.0})])
    journal.append(
        turn(
            3,
            (0, DONE, 4),
            (2, STOPPED, 0),
            started=[(4, 1)],
            exchanged=[Exchanged(0, 2, 4, {"lr": 0.5})],
        ),
        [(0, 4, 0.3)],
        {0: {"test_loss": 0.2}},
        [(0, 0.3, blob(1)), (1, 0.4, blob(2))],
        keep=2,
    )
    journal.roll_back(2)
    status = {trial: status for trial, _, status, _, _ in journal.trials()}
    assert status == {0: "running", 1: "stopped", 2: "pending", 3: "pending", 4: "pending"}
    assert journal.reports()[1][:, :2].tolist() == [[0, 2], [1, 2]]
    assert journal.lineage() == [] and journal.scores() == {1: 0.4} and journal.last_turn() == 2
    assert [tuple(t) for t in journal.history("loss")] == [
        (1, {0: [0.5], 1: [0.4]}, {0: 2, 1: 2}, {}, False, [3]),
        (2, {}, {}, {1: ("stopped", 2)}, True, []),
    ]
    assert journal.seats() == {0: (1, 0, None), 1: (1, 1, 2)}
    journal.roll_back(0)
    assert [row[::2] for row in journal.trials()] == [(trial, "pending", {}) for trial in range(4)]


def test_a_search_that_gives_the_same_again(journal):
    journal.asked(1, 2, [(4, {"lr": 1.0}), (5, {"lr": 2.0})])
    journal.check_asked([(4, {"lr": 1.0}), (5, {"lr": 2.0})], "grid")
    journal.check_asked([], "grid")
    with pytest.raises(StoreError, match=r"The search grid gives .*3\.0.* for trial 5, but"):
        journal.check_asked([(4, {"lr": 1.0}), (5, {"lr": 3.0})], "grid")


def test_the_first_and_the_last_of_many_are_checked(journal):
    given = [(trial, {"lr": float(trial)}) for trial in (4, 5, 6, 7)]
    journal.asked(1, 4, given)
    journal.check_asked(given, "grid")
    for wrong in (0, 3):
        other = [(t, {"lr": 9.0} if at == wrong else c) for at, (t, c) in enumerate(given)]
        with pytest.raises(StoreError, match=f"for trial {given[wrong][0]}, but"):
            journal.check_asked(other, "grid")


def test_lineage_is_of_its_turn(journal):
    journal.append(turn(7, exchanged=[Exchanged(2, 5, 3, {"lr": 0.5})]))
    journal.append(turn(8, exchanged=[Exchanged(2, 6, 1, {})]))
    journal.roll_back(7)
    assert journal.lineage() == [Exchanged(2, 5, 3, {"lr": 0.5})]
    journal.roll_back(6)
    assert journal.lineage() == []


def test_before_the_first_turn_the_last_one_is_none():
    empty = Journal(None)
    empty.begin({}, ["loss"], [])
    assert empty.last_turn() == 0
    empty.append(Record(3, "segment"), [(0, 2, 0.5)])
    assert empty.last_turn() == 3
    empty.close()


def test_no_state_is_kept_unless_it_is_said(journal):
    journal.append(turn(1), states=[(0, 0.5, blob(1))])
    assert journal.scores() == {}


def test_trials_that_start_again(journal):
    journal.append(turn(1, (1, DONE, 2), started=[(0, 0), (1, 1)]), [(0, 2, 0.5), (1, 2, 0.4)])
    journal.forget_running()
    assert journal.reports()[1].tolist() == [[1, 2, 0.4]]
    assert journal.counts() == {"pending": 3, "done": 1}
    assert journal.config(2) == {"lr": 0.2} and journal.config(9) == {}


def test_a_folder_is_read_where_nothing_can_be_written(tmp_path):
    writer = Journal(tmp_path)
    writer.begin({"steps": 4}, ["loss"], [(0, {})])
    writer.close()
    for file in ("run.sqlite-wal", "run.sqlite-shm"):
        assert not (tmp_path / file).exists()
    reader = Journal(tmp_path, write=False)
    assert len(reader.trials()) == 1
    with pytest.raises(StoreError, match="cannot be written: attempt to write a readonly"):
        reader.asked(0, 1, [(1, {})])
    reader.close()


@pytest.mark.parametrize(
    "there,now,lines",
    [
        # More epochs change the program too, which is no news.
        ({"steps": 54, "programs": {"": "a"}}, {"steps": 108, "programs": {"": "b"}},
         ["  steps: 54 there, 108 now, by `steps` or `epochs`"]),
        ({"space": {"seed": {"seeds": 3}}, "trials": 6, "programs": {"w=8": "a"}},
         {"space": {"seed": {"seeds": 4}}, "trials": 8, "programs": {"w=8": "b"}},
         ["  space.seed.seeds: 3 there, 4 now", "  trials: 6 there, 8 now"]),
        # Another root seed explains no other program.
        ({"seed": 0, "programs": {"w=8": "a"}}, {"seed": 7, "programs": {"w=8": "b"}},
         ["  make_trial for w=8 computes something else now", "  seed: 0 there, 7 now"]),
    ],
)  # fmt: skip
def test_what_differs_is_named_as_what_it_is(tmp_path, there, now, lines):
    with contextlib.closing(Journal(tmp_path)) as journal:
        journal.begin(there, ["loss"], CONFIGS)
        with pytest.raises(StoreError) as error:
            journal.begin(now, ["loss"], CONFIGS)
    assert str(error.value).splitlines()[1:-1] == lines


NAMES = [
    'a "b" c',
    "a b",
    "$x$",
    "[red]",
    "'; DROP TABLE trials; --",
    "größe",
    "turn 1",
    "a.b",
    "%s",
]


def test_any_name_of_a_metric_comes_back(tmp_path):
    names = sorted(f"valid_{name}" for name in NAMES)
    journal = Journal(tmp_path / "run")
    journal.begin({"steps": 4}, names, CONFIGS)
    row = [0.5 + i for i in range(len(names))]
    journal.append(turn(1, started=[(0, 0)]), [(0, 2, *row)])
    assert list(journal.history(names[0]))[-1].values == {0: [0.5]}
    journal.close()
    with contextlib.closing(Tables(tmp_path / "run", write=False)) as read:
        there, table = read.reports()
    assert list(there) == names and table[0, 2:].tolist() == row


@pytest.mark.parametrize(
    "names,message",
    [
        (["valid_F1", "valid_f1"], "'valid_F1' and 'valid_f1' differ in case only"),
        ([f"m{i}" for i in range(1997)], "At most 1,996 metrics can be reported, got 1,997"),
        (["steps"], "A metric cannot be called 'steps'"),
        (["a\0b"], "without NUL"),
        (["\udc80"], "without lone surrogates"),
    ],
)
def test_names_that_no_table_holds_are_refused(tmp_path, names, message):
    with contextlib.closing(Journal(tmp_path)) as journal:
        with pytest.raises(ValueError, match=message):
            journal.begin({"steps": 4}, names, CONFIGS)
        journal.begin({"steps": 4}, [f"m{i}" for i in range(1996)], CONFIGS)


def sqlite_error(kind, text, name):
    error = kind(text)
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    "error,says,not_says",
    [
        (sqlite_error(sqlite3.OperationalError, "locking protocol", "SQLITE_PROTOCOL"),
         "cannot be locked: locking protocol", "damaged|Free some space|Move the folder"),
        (sqlite_error(sqlite3.OperationalError, "database is locked", "SQLITE_BUSY"),
         "cannot be locked", "damaged|Free some space"),
        (sqlite_error(sqlite3.OperationalError, "disk is full", "SQLITE_FULL"),
         "Free some space", "damaged|locked"),
        (sqlite_error(sqlite3.OperationalError, "disk I/O error", "SQLITE_IOERR_WRITE"),
         "Free some space", "damaged|locked"),
        (sqlite_error(sqlite3.OperationalError, "no such table: reports", "SQLITE_ERROR"),
         "damaged or not a run", "Free some space|locked"),
        (sqlite_error(sqlite3.DatabaseError, "malformed", "SQLITE_CORRUPT"),
         "damaged or not a run", "Free some space|locked"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", ["_readable", "_writing"])
def test_each_error_of_sqlite_is_said_as_what_it_is(journal, how, error, says, not_says):
    with pytest.raises(StoreError, match=says) as raised, getattr(journal, how)():
        raise error
    assert not re.search(not_says, str(raised.value))


def test_a_reader_knows_whether_anyone_writes(tmp_path):
    journal = Journal(tmp_path)
    journal.begin({"steps": 4}, ["loss"], CONFIGS)
    reader = Tables(tmp_path, write=False)
    assert reader.in_use() and not journal.in_use()
    journal.close()
    assert not reader.in_use()
    (tmp_path / "lock").unlink()
    assert not reader.in_use()
    reader.close()
