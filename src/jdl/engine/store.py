"""The store: one SQLite file that holds a run's specification, trials, reports and best states.

One process writes. A segment's reports and verdicts commit in one transaction,
so that a run killed at any moment leaves whole segments; readers may look at
any time.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

try:  # Windows has no fcntl, and locks the first byte of a file instead.
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

from jdl.engine import checkpoint

PENDING, RUNNING, DONE, DIVERGED, STOPPED = "pending", "running", "done", "diverged", "stopped"
ENDED = (DONE, DIVERGED, STOPPED)

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trials (
  trial INTEGER PRIMARY KEY,
  config TEXT NOT NULL,      -- hyperparameters, as JSON
  status TEXT NOT NULL,      -- pending, running, done, diverged or stopped
  steps INTEGER NOT NULL,    -- finite steps taken when it ended
  final TEXT                 -- test metrics, as JSON
);
CREATE TABLE states (trial INTEGER PRIMARY KEY, score REAL NOT NULL, state BLOB NOT NULL);
"""


class StoreError(ValueError):
    """A run's folder that cannot be used: damaged, of another specification, or in use."""


class Ended(NamedTuple):
    """How one trial ended."""

    trial: int
    status: str
    steps: int
    final: Mapping[str, float]


class Store:
    """A run's folder, or a store in memory when `folder` is None."""

    def __init__(self, folder: str | os.PathLike[str] | None, *, write: bool = True):
        self.folder = None if folder is None else pathlib.Path(folder)
        self._lock: Any = None
        self._metrics: tuple[str, ...] = ()
        if self.folder is None:
            self._db = sqlite3.connect(":memory:", check_same_thread=False)
            self._db.executescript(_SCHEMA)
            return
        path = self.folder / "run.sqlite"
        if write:
            self._prepare()
        elif not path.exists():
            raise StoreError(f"{self.folder} holds no run: there is no run.sqlite in it.")
        self._db = sqlite3.connect(path, check_same_thread=False)
        try:
            with self._readable():
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")
                if not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                    self._db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
                columns = self._db.execute("PRAGMA table_info(reports)").fetchall()
                self._metrics = tuple(name for _, name, *_ in columns)[2:]
        except StoreError:
            self.close()
            raise

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
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self._lock.close()
                raise StoreError(
                    f"Another process is running in {self.folder}. Wait for it, or give another "
                    "folder; `jdl report` may look at it meanwhile."
                ) from error

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self.folder}/run.sqlite is damaged or no run: {error}. Move the folder away to "
                "start anew."
            ) from error

    def close(self) -> None:
        """Closes the file and lets other processes write."""
        self._db.close()
        if self._lock is not None:
            self._lock.close()

    def specification(self) -> dict[str, Any] | None:
        """What the run was started with, or None if it has not been."""
        with self._readable():
            row = self._db.execute("SELECT value FROM meta WHERE key='specification'").fetchone()
            return json.loads(row[0]) if row else None

    def begin(self, specification: Mapping[str, Any], metrics: Sequence[str]) -> bool:
        """Writes the specification, or checks it against the one that is there.

        Returns:
          Whether the run had been started before.

        Raises:
          StoreError: the folder holds a run of another specification; the
            message lists what differs.
        """
        found = self.specification()
        wanted = json.loads(json.dumps(specification))
        if found is not None:
            there, now = _flat(found), _flat(wanted)
            differences = [
                f"  {key}: {there.get(key, 'nothing')} there, {now.get(key, 'nothing')} now"
                for key in sorted({*there, *now})
                if there.get(key) != now.get(key)
            ]
            if differences:
                raise StoreError(
                    f"{self.folder} holds a run of another specification:\n"
                    + "\n".join(differences)
                    + "\nGive another folder, or the same arguments to resume that run."
                )
            return True
        columns = "".join(f', "{name}" REAL' for name in metrics)
        with self._db:
            self._db.execute("INSERT INTO meta VALUES ('specification', ?)", (json.dumps(wanted),))
            self._db.execute(
                f"CREATE TABLE reports (trial INTEGER, step INTEGER{columns},"
                " PRIMARY KEY (trial, step)) WITHOUT ROWID"
            )
        self._metrics = tuple(metrics)
        return False

    def note(self, **notes: Any) -> None:
        """Keeps facts about the run, such as the plan, for later readers."""
        with self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                [(key, json.dumps(value)) for key, value in notes.items()],
            )

    def notes(self) -> dict[str, Any]:
        """What `note` was given."""
        rows = self._db.execute("SELECT key, value FROM meta WHERE key != 'specification'")
        return {key: json.loads(value) for key, value in rows}

    def add_trials(self, configs: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """Adds trials that are still to run."""
        with self._db:
            self._db.executemany(
                "INSERT INTO trials VALUES (?, ?, 'pending', 0, NULL)",
                [(trial, json.dumps(config)) for trial, config in configs],
            )

    def record(
        self,
        reports: Iterable[tuple[Any, ...]],
        ended: Sequence[Ended] = (),
        started: Sequence[int] = (),
        states: Sequence[tuple[int, float, bytes]] = (),
        keep: int = 0,
    ) -> None:
        """Writes what a segment brought, in one transaction.

        Args:
          reports: rows of trial, step and one value for each metric.
          ended: trials that ended; one that had ended before stays as it was.
          started: trials that took a lane.
          states: trial, score (larger is better) and serialised state.
          keep: how many of the best states stay.
        """
        places = ", ".join("?" * (2 + len(self._metrics)))
        with self._db:
            self._db.executemany(f"INSERT OR REPLACE INTO reports VALUES ({places})", reports)
            self._db.executemany(
                "UPDATE trials SET status='running' WHERE trial=? AND status='pending'",
                [(trial,) for trial in started],
            )
            self._db.executemany(
                "UPDATE trials SET status=?, steps=?, final=? WHERE trial=?"
                " AND status IN ('pending', 'running')",
                [(e.status, e.steps, json.dumps(e.final), e.trial) for e in ended],
            )
            self._db.executemany("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", states)
            if states:
                self._db.execute(
                    "DELETE FROM states WHERE trial NOT IN"
                    " (SELECT trial FROM states ORDER BY score DESC, trial LIMIT ?)",
                    (keep,),
                )

    def trials(self) -> list[tuple[int, dict[str, Any], str, int, dict[str, float]]]:
        """Every trial: number, configuration, status, steps, test metrics."""
        with self._readable():
            return [
                (trial, json.loads(config), status, steps, json.loads(final or "{}"))
                for trial, config, status, steps, final in self._db.execute(
                    "SELECT * FROM trials ORDER BY trial"
                )
            ]

    def reports(self) -> tuple[tuple[str, ...], np.ndarray]:
        """The metrics' names, and rows of trial, step and each metric, as float64."""
        with self._readable():
            rows = self._db.execute("SELECT * FROM reports ORDER BY trial, step").fetchall()
            table = np.array(rows, dtype=np.float64).reshape(len(rows), 2 + len(self._metrics))
            return self._metrics, table

    def scores(self) -> dict[int, float]:
        """The scores of the states kept, by trial."""
        return dict(self._db.execute("SELECT trial, score FROM states"))

    def state(self, trial: int) -> dict[str, np.ndarray] | None:
        """The kept state of `trial` by path, or None."""
        row = self._db.execute("SELECT state FROM states WHERE trial=?", (trial,)).fetchone()
        return checkpoint.from_bytes(row[0], f"the state of trial {trial}")[0] if row else None


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """The entries of nested dicts by their dotted path, as JSON."""
    if not isinstance(value, dict):
        return {path: json.dumps(value)}
    flat: dict[str, str] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{path}.{key}" if path else str(key))
    return flat
