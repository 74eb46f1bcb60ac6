"""The file of a run: one writer, any reader, and what is said when it cannot be used."""

from __future__ import annotations

import sqlite3
import threading

import pytest

from jdl.engine import checksums, database
from jdl.engine.database import Database, StoreError


def failure(name, words):
    """An error as SQLite's library raises it."""
    error = sqlite3.OperationalError(words)
    error.sqlite_errorname = f"SQLITE_{name}"
    return error


class Notes(Database):
    """A file that is written and read."""

    def add(self, key, value):
        with self._writing():
            self._db.execute("INSERT INTO meta (key, value) VALUES (?, ?)", (key, value))

    def all(self):
        with self._readable():
            return self._db.execute("SELECT key, value FROM meta ORDER BY key").fetchall()

    def fail(self, error):
        with self._writing():
            self._db.execute("INSERT INTO meta (key, value) VALUES ('lost', 'x')")
            raise error


def test_one_process_writes_and_others_read(tmp_path):
    one = Notes(tmp_path / "deep" / "run")
    assert (one.folder, one.metrics) == (tmp_path / "deep" / "run", ())
    one.add("a", "1")
    with pytest.raises(StoreError, match=r"Another process is running in .*run. Wait for it"):
        Notes(tmp_path / "deep" / "run")
    reader = Notes(str(tmp_path / "deep" / "run"), write=False)
    assert reader.all() == [("a", "1")]
    one.add("b", "2")
    assert reader.all() == [("a", "1"), ("b", "2")]
    with pytest.raises(StoreError, match="cannot be written: attempt to write a readonly"):
        reader.add("c", "3")
    reader.close()
    one.close()
    # Whoever comes next finds everything, and may write.
    two = Notes(tmp_path / "deep" / "run")
    two.add("c", "3")
    assert len(two.all()) == 3
    assert two._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    two.close()


def test_in_memory_there_is_no_folder():
    one, two = Notes(None), Notes(None)
    one.add("a", "1")
    assert one.folder is None and one.all() == [("a", "1")] and two.all() == []
    one.close()


def test_a_transaction_is_whole_or_not_there(tmp_path):
    one = Notes(tmp_path)
    with pytest.raises(KeyError):
        one.fail(KeyError("mine"))
    with pytest.raises(StoreError, match=r"cannot be written: disk is full.*safe. Free some space"):
        one.fail(failure("FULL", "disk is full"))
    assert one.all() == []
    one.close()


def test_the_metrics_are_the_columns_behind_the_turn(tmp_path):
    one = Notes(tmp_path)
    columns = "trial INT, step INT, turn INT, crc INT, loss REAL, size REAL"
    one._db.execute(f"CREATE TABLE reports ({columns})")
    checksums.sign(one._db)
    one.close()
    for write in (True, False):
        two = Notes(tmp_path, write=write)
        assert two.metrics == ("loss", "size")
        two.close()


def test_what_is_no_run(tmp_path):
    with pytest.raises(StoreError, match=r"empty holds no run: there is no run.sqlite"):
        Notes(tmp_path / "empty", write=False)
    assert not (tmp_path / "empty").exists()
    (tmp_path / "run.sqlite").write_bytes(b"this was never a database" * 99)
    for write in (False, True):
        with pytest.raises(StoreError, match=r"is damaged or not a run: .* move it away"):
            Notes(tmp_path, write=write)
    (tmp_path / "run.sqlite").unlink()
    Notes(tmp_path).close()  # the lock was given back


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"The folder .*file cannot be written: File exists"):
        Notes(tmp_path / "file")
    with pytest.raises(StoreError, match=r"cannot be written: Not a directory"):
        Notes(tmp_path / "file" / "inside")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("FULL", "database or disk is full"),
        ("IOERR_WRITE", "disk I/O error"),
        ("CANTOPEN", "unable to open"),
        ("READONLY_DBMOVED", "attempt to write a readonly database"),
    ],
)
def test_a_disk_that_fails_is_told_from_a_file_that_is_damaged(name, words):
    one = Notes(None)
    with pytest.raises(StoreError, match=f"cannot be written: {words}"), one._readable():
        raise failure(name, words)
    with pytest.raises(StoreError, match="cannot be locked: locking protocol"), one._readable():
        raise failure("PROTOCOL", "locking protocol")
    with pytest.raises(StoreError, match="damaged or not a run: no such table"), one._readable():
        raise sqlite3.OperationalError("no such table")
    with pytest.raises(StoreError, match="damaged or not a run: file is full of"), one._readable():
        raise sqlite3.DatabaseError("file is full of errors")
    one.close()


def test_a_log_that_cannot_be_made_is_done_without(tmp_path, monkeypatch):
    """A reader in a folder that is not its own cannot make the files of a write-ahead log."""
    one = Notes(tmp_path)
    one.add("a", "1")
    one.close()
    connect, tried = sqlite3.connect, []

    def refuse(where, **options):
        assert options["uri"]  # many builds of SQLite ask for it, and many do not
        tried.append(where.rpartition("?")[2])
        if tried[-1] == "mode=ro":
            raise sqlite3.OperationalError("unable to open database file")
        return connect(where, **options)

    monkeypatch.setattr(database.sqlite3, "connect", refuse)
    reader = Notes(tmp_path, write=False)
    assert elsewhere(reader) == [("a", "1")] and tried == ["mode=ro", "immutable=1"]
    reader.close()


def elsewhere(notes):
    """What another thread reads."""
    found = []
    thread = threading.Thread(target=lambda: found.append(notes.all()))
    thread.start()
    thread.join()
    return found[0]


def test_a_file_may_be_read_in_another_thread(tmp_path):
    one = Notes(tmp_path)
    one.add("a", "1")
    reader = Notes(tmp_path, write=False)
    assert elsewhere(one) == elsewhere(reader) == [("a", "1")]
    assert elsewhere(Notes(None)) == []
    reader.close()
    one.close()


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    left = [tmp_path / f".{name}.tmp" for name in ("a3", "b4")]
    for path in left:
        path.write_bytes(b"half")
    (tmp_path / "notes.tmp").write_text("mine")
    one = Notes(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".tmp") == ["notes.tmp"]
    # Who only reads removes nothing, because a writer may be at work.
    left[0].write_bytes(b"half")
    Notes(tmp_path, write=False).close()
    assert left[0].exists()
    one.close()
