"""Whatever bit flips in a run's file: what is read is what was written, or it is refused."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
import zlib

import numpy as np
import pytest

from jdl.engine import checkpoint
from jdl.engine.database import StoreError
from jdl.engine.events import DONE, STOPPED, Ended, Exchanged, Record
from jdl.engine.journal import Journal
from jdl.engine.tables import Tables

NAMES = ["loss", *(f"valid_{i}" for i in range(120))]  # more than a function of SQLite takes
ACCURACY = 0.133


def write(folder, names):
    """A run with rows in every table, some of them replaced, rolled back or forgotten."""
    journal = Journal(folder)
    journal.begin({"steps": 8}, names, [(i, {"lr": 0.1 * i, "act": "relu"}) for i in range(30)])
    random = np.random.default_rng(0)
    for n in range(1, 25):
        rows = [(n, step, *random.normal(size=len(names)).tolist()) for step in (2, 4)]
        rows.append((n - 1, 4, ACCURACY, *[float("nan")] * (len(names) - 1)))
        ended = (Ended(n, DONE if n % 2 else STOPPED, 4, 0.5),)
        bred = (Exchanged(n, 1, 0, {"lr": 0.25}),)
        state = n, float(n), checkpoint.to_bytes({"w": random.normal(size=9)})
        record = Record(n, "settle" if n % 3 else "segment", ((n, 0), (n + 1, 1)), ended, bred)
        journal.append(record, rows, {n: {"test_loss": 0.1 * n}}, [state], keep=12)
        if n % 7 == 0:
            journal.roll_back(n - 1)
            journal.note(plans={"": n})
    journal.forget_running()
    journal.asked(24, 2, [(30, {"lr": 7.0}), (31, {"lr": 8.0})])
    journal.close()
    return folder / "run.sqlite"


def contents(folder):
    """Everything that a reader gives."""
    with contextlib.closing(Tables(folder, write=False)) as tables:
        names, table = tables.reports()
        states = {trial: tables.state(trial)["w"].tolist() for trial in tables.scores()}
        parts = tables.specification(), tables.notes(), tables.trials(), tables.counts()
        parts += tables.seats(), tables.segments().tolist(), tables.lineage(), tables.scores()
        return repr((parts, names, table.tolist(), states, [*Journal.history(tables, "loss")]))


def everything_else(folder):
    """The same of one that resumes the run."""
    with contextlib.closing(Journal(folder)) as journal:
        journal.append(Record(50, "segment"), [(29, 2, *[0.5] * len(journal.metrics))])
        journal.roll_back(3)
        journal.forget_running()
        journal.sync()


def noticed(path, damaged, whole) -> bool:
    """Whether a reader refuses the file; else it gives what was written."""
    path.write_bytes(damaged)
    try:
        assert contents(path.parent) == whole
    except StoreError as error:
        assert "run.sqlite is damaged" in str(error) and "Put back a copy" in str(error)
        with pytest.raises(StoreError, match="Put back a copy of the folder, or move it away"):
            everything_else(path.parent)
        return True
    return False


def test_every_flipped_bit_is_noticed_or_does_not_matter(tmp_path):
    path = write(tmp_path, NAMES[:3])
    whole, blob = contents(tmp_path), path.read_bytes()
    random = np.random.default_rng(1)
    found = 0
    for place, bit in zip(random.integers(0, len(blob), 300), random.integers(0, 8, 300)):
        damaged = bytearray(blob)
        damaged[place] ^= 1 << int(bit)
        found += noticed(path, damaged, whole)
    assert found > 60  # most of the others are in unused space


def test_damaged_pages_are_noticed(tmp_path):
    path = write(tmp_path, NAMES[:3])
    whole, blob = contents(tmp_path), path.read_bytes()
    random = np.random.default_rng(2)
    for _ in range(40):
        damaged = bytearray(blob)
        for place in random.integers(1, len(blob) // 1024, size=3):
            damaged[place * 1024 : place * 1024 + 600] = random.bytes(600)
        noticed(path, damaged, whole)
    for length in random.integers(1, len(blob), 20):
        noticed(path, blob[:length], whole)


@pytest.mark.parametrize("names", [NAMES[:1], NAMES], ids=["one metric", "many metrics"])
def test_an_accuracy_that_doubled(tmp_path, names):
    """The lowest bit of the exponent makes 0.133 into 0.266."""
    path = write(tmp_path, names)
    before, after = (struct.pack(">d", value) for value in (ACCURACY, 2 * ACCURACY))
    assert [a ^ b for a, b in zip(before, after)] == [0, 16, 0, 0, 0, 0, 0, 0]
    blob = bytearray(path.read_bytes())
    blob[blob.rindex(before) + 1] ^= 16
    path.write_bytes(blob)
    for opened in (contents, everything_else):
        with pytest.raises(StoreError, match=r"table reports \(trial \d+, step 4\) does not match"):
            opened(tmp_path)


def test_checksums_are_what_the_docstring_says(tmp_path):
    """They are computed from what plain SQL reads, which needs nothing of this library."""
    path = write(tmp_path, NAMES[:2])
    checked = 0
    with contextlib.closing(sqlite3.connect(path)) as db:
        for table in ("meta", "trials", "states", "events", "lineage", "reports"):
            cursor = db.execute(f"SELECT * FROM {table}")
            at = [column[0] for column in cursor.description].index("crc")
            for row in cursor:
                others = (*row[:at], *row[at + 1 :])
                if table == "states":
                    others = (*others[:-1], zlib.crc32(others[-1]))
                assert row[at] == zlib.crc32(repr(others).encode())
                checked += 1
        assert db.execute("SELECT MAX(loss) FROM reports").fetchone()[0] > ACCURACY
    assert checked > 100


def test_a_file_of_which_nothing_is_written_yet(tmp_path):
    (tmp_path / "run.sqlite").write_bytes(b"")
    with pytest.raises(StoreError, match="does not hold a run yet"):
        Tables(tmp_path, write=False)
    Journal(tmp_path).close()
    Tables(tmp_path, write=False).close()
