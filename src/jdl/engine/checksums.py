"""The checksum of every row of a run's file, so that a flipped bit is noticed.

Triggers of the writing connection fill in the column `crc` of each row: the CRC-32 of the
row's other columns, as Python writes a tuple of them (a state as its own CRC-32; more than
100 columns as the checksums of each hundred). Whoever opens the file compares. The file's
`user_version` is the checksum of the definitions of its tables.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from typing import Any

from jdl.engine.names import quoted

KEYS = {
    "meta": ("key",),
    "trials": ("trial",),
    "states": ("trial",),
    "events": ("rowid",),
    "lineage": ("trial", "report"),
    "reports": ("trial", "step"),
}
"""What tells the rows of each table apart."""

MOST = 100  # arguments; SQLite allows a function 127


def define(db: sqlite3.Connection) -> None:
    """Gives a connection the function that computes checksums."""
    db.create_function("checksum", -1, _checksum, deterministic=True)


def sign(db: sqlite3.Connection) -> None:
    """Writes the checksum of the tables' definitions, after they were made."""
    db.execute(f"PRAGMA user_version = {_definitions(db)}")


def keep(db: sqlite3.Connection) -> None:
    """Makes this connection write the checksum of every row that it inserts or updates."""
    for table, keys in KEYS.items():
        if columns := _columns(db, table):
            new = [f"new.{name}" for name in columns]
            row = ", ".join(f"new.{key}" for key in keys)
            for event in ("INSERT", f"UPDATE OF {', '.join(columns)}"):
                db.execute(
                    f"CREATE TEMP TRIGGER IF NOT EXISTS {table}_{event[:6]} AFTER {event} ON"
                    f" {table} BEGIN UPDATE {table} SET crc = {_call(new)}"
                    f" WHERE ({', '.join(keys)}) = ({row}); END"
                )


def damage(db: sqlite3.Connection) -> str | None:
    """What is damaged in the tables, or None.

    Raises:
      sqlite3.DatabaseError: the file cannot be read.
    """
    db.execute("BEGIN")  # one moment of a file that another process may be writing
    try:
        if db.execute("PRAGMA user_version").fetchone() != (_definitions(db),):
            return "the definitions of its tables do not match their checksum"
        for table, keys in KEYS.items():
            if not (columns := _columns(db, table)):
                continue
            (found,) = db.execute(f"PRAGMA integrity_check({table})").fetchone()
            if found != "ok":
                return found
            row = db.execute(
                f"SELECT {', '.join(keys)} FROM {table} WHERE crc IS NOT {_call(columns)} LIMIT 1"
            ).fetchone()
            if row is not None:
                which = ", ".join(f"{key} {value}" for key, value in zip(keys, row))
                return f"a row of the table {table} ({which}) does not match its checksum"
    finally:
        db.rollback()
    return None


def _checksum(*row: Any) -> int:
    if isinstance(row[-1], bytes):  # a state, which may be large
        row = (*row[:-1], zlib.crc32(row[-1]))
    return zlib.crc32(repr(row).encode())


def _definitions(db: sqlite3.Connection) -> int:
    sql = db.execute("SELECT name, sql FROM sqlite_master WHERE type='table' ORDER BY name")
    return _checksum([row for row in sql if row[0] in KEYS]) >> 1  # SQLite's number is signed


def _columns(db: sqlite3.Connection, table: str) -> list[str]:
    """The columns that a row's checksum covers; none if there is no such table."""
    names = [name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")]
    return [quoted(name) for name in names if name != "crc"]


def _call(columns: Sequence[str]) -> str:
    """The SQL for the checksum of a row: of many columns, that of the checksums of parts."""
    parts = [", ".join(columns[i : i + MOST]) for i in range(0, len(columns), MOST)]
    calls = [f"checksum({part})" for part in parts]
    return calls[0] if len(calls) == 1 else f"checksum({', '.join(calls)})"
