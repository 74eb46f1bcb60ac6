"""The run's SQLite file: a lock where the system has one, read-only access, readable errors."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

from jdl._paths import expanded
from jdl.engine import checksums

try:  # Windows has no fcntl: nothing keeps a second process out of a folder there.
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]


_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER);
CREATE TABLE trials (
  trial INTEGER PRIMARY KEY,
  config TEXT NOT NULL,      -- hyperparameters, as JSON
  status TEXT NOT NULL,      -- pending, running, done, diverged or stopped
  steps INTEGER NOT NULL,    -- finite steps taken when it ended
  final TEXT,                -- test metrics, as JSON
  asked INTEGER NOT NULL,    -- turn
  started INTEGER,           -- turn
  lane INTEGER,              -- that it started in
  ended INTEGER,             -- turn
  crc INTEGER                -- of the row, in every table: see checksums.py
);
CREATE TABLE states (
  trial INTEGER PRIMARY KEY, score REAL NOT NULL, crc INTEGER, state BLOB NOT NULL
);
CREATE TABLE events (          -- what the host did besides collecting segments
  turn INTEGER NOT NULL,
  kind TEXT NOT NULL,
  value INTEGER NOT NULL,
  crc INTEGER
);
CREATE TABLE lineage (         -- what a population did to its members
  trial INTEGER NOT NULL,
  report INTEGER NOT NULL,     -- after which
  turn INTEGER NOT NULL,
  source INTEGER NOT NULL,     -- the trial whose state it has since, often its own
  numbers TEXT NOT NULL,       -- its hyperparameters since, as JSON
  crc INTEGER,
  PRIMARY KEY (trial, report)
) WITHOUT ROWID;
"""


# SQLite's message about a damaged file may hold bytes of it.
_DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)


class StoreError(ValueError):
    """A run's folder is damaged, in use, or of another specification."""


class Database:
    """The SQLite file in a run's folder, or one in memory when `folder` is None."""

    def __init__(self, folder: str | os.PathLike[str] | None, *, write: bool = True):
        self.folder = None if folder is None else expanded(folder)
        self._lock: Any = None
        self._db: Any = None
        self.metrics: tuple[str, ...] = ()
        if self.folder is None:
            self._db = sqlite3.connect(":memory:", check_same_thread=False)
            self._db.executescript(_SCHEMA)
            return
        path = self.folder / "run.sqlite"
        if write:
            self._prepare()
        elif not path.exists():
            raise StoreError(f"{self.folder} holds no run: there is no run.sqlite in it.")
        try:
            with self._readable():
                # Waits for a lock as long as by default, five seconds.
                self._db = (
                    sqlite3.connect(path, check_same_thread=False) if write else _reader(path)
                )
                if write:
                    self._db.execute("PRAGMA journal_mode=WAL")
                    self._db.execute("PRAGMA synchronous=NORMAL")
                self._check(write)
                columns = self._db.execute("PRAGMA table_info(reports)").fetchall()
                self.metrics = tuple(name for _, name, *_ in columns)[4:]
        except StoreError:
            self.close()
            raise

    def _check(self, write: bool) -> None:
        """Makes the tables of a new file, and compares the checksums of another."""
        checksums.define(self._db)
        if self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
            if found := checksums.damage(self._db):
                raise StoreError(_damaged(self.folder, found))
        elif write:
            self._db.executescript(f"BEGIN; {_SCHEMA}")
            checksums.sign(self._db)
            self._db.commit()
        else:
            raise StoreError(f"{self.folder} does not hold a run yet.")
        if write:
            checksums.keep(self._db)

    def _prepare(self) -> None:
        assert self.folder is not None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.folder / "lock", "a+")  # noqa: SIM115
        except OSError as error:
            raise StoreError(
                f"The folder {self.folder} cannot be written: {error.strerror}. Give another one."
            ) from error
        if fcntl is not None:
            try:
                _take(self._lock)
            except BlockingIOError as error:
                self._lock.close()
                raise StoreError(
                    f"Another process is running in {self.folder}. Wait for it, or give another "
                    "folder; `jdl report` can read it meanwhile."
                ) from error
            except OSError as error:
                self._lock.close()
                raise StoreError(
                    f"The folder {self.folder} cannot be locked: {error.strerror}. Give one on a "
                    "file system that has locks."
                ) from error
        # A killed writer left them, and no other writes here now.
        for left in self.folder.glob(".*.tmp"):
            left.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (*_DAMAGE, json.JSONDecodeError) as error:
            raise StoreError(_readable_error(self.folder, error)) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, creating tables included; what the disk does is readable."""
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise  # a fault of this program, not of the file
        except _DAMAGE as error:
            raise StoreError(_readable_error(self.folder, error)) from error

    def in_use(self) -> bool:
        """Whether another process writes the run; where files cannot be locked, whether one may."""
        if self.folder is None or self._lock is not None:
            return False
        if fcntl is None:
            return True
        try:
            with open(self.folder / "lock", "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # no lock: the folder was copied without it
            return False
        return False

    def close(self) -> None:
        """Closes the file and gives up its lock."""
        if self._db is not None:
            self._db.close()
        if self._lock is not None:
            self._lock.close()


def _take(lock: Any) -> None:
    """Locks a file for one writer; a reader that looks whether it is locked holds it an instant."""
    for left in reversed(range(3)):
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not left:
                raise
            time.sleep(0.02)


def _reader(path: pathlib.Path) -> sqlite3.Connection:
    """A read-only connection, which also works in a read-only folder."""
    where = path.resolve().as_uri()
    try:
        db = sqlite3.connect(f"{where}?mode=ro", uri=True, check_same_thread=False)
        db.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        # The files of the write-ahead log are missing and cannot be created.
        db = sqlite3.connect(f"{where}?immutable=1", uri=True, check_same_thread=False)
    except _DAMAGE:
        pass  # the first read raises it with a readable message
    return db


_DISK = ("FULL", "READONLY", "IOERR", "CANTOPEN", "PERM")
_LOCKED = ("BUSY", "LOCKED", "PROTOCOL")


def _readable_error(folder: pathlib.Path | None, error: Exception) -> str:
    """What an error of SQLite means to a person, and what to do."""
    # Extended names begin with the plain one: SQLITE_IOERR_WRITE.
    name = getattr(error, "sqlite_errorname", "").removeprefix("SQLITE_")
    path = f"{folder}/run.sqlite"
    if name.startswith(_DISK):
        return (
            f"{path} cannot be written: {error}. Earlier records are safe. Free some space or make "
            "the folder writable, then run the same again to resume."
        )
    if name.startswith(_LOCKED):
        return (
            f"{path} cannot be locked: {error}. Wait for the program that uses it; if there is "
            "none, the file system has no locks: give a folder on another one."
        )
    return _damaged(folder, error)


def _damaged(folder: pathlib.Path | None, what: object) -> str:
    return (
        f"{folder}/run.sqlite is damaged or not a run: {what}. Put back a copy of the folder, or "
        "move it away to start again."
    )
