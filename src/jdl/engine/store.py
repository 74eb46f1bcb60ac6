"""The store: one SQLite file that holds a run's specification, trials, reports and best states.

One process writes. A segment's reports and verdicts commit in one transaction,
so that a run killed at any moment leaves whole segments; readers may look at
any time. Every row has the number of the turn that wrote it, so that a run
whose order counts can be taken back to an earlier turn.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jdl.engine import checkpoint
from jdl.engine.database import Database, StoreError

PENDING, RUNNING, DONE, DIVERGED, STOPPED = "pending", "running", "done", "diverged", "stopped"
ENDED = (DONE, DIVERGED, STOPPED)


class Ended(NamedTuple):
    """How one trial ended."""

    trial: int
    status: str
    steps: int
    final: Mapping[str, float]


class Turn(NamedTuple):
    """What one turn of the host wrote, in the order in which it happened."""

    turn: int
    reports: list[tuple[int, int, float | None]]  # trial, step, metric
    ended: list[tuple[int, str]]  # trial, status
    events: list[tuple[str, int]]  # "settle", or "ask" and how many were asked for


class Bred(NamedTuple):
    """What a population did to one member after a report."""

    trial: int
    report: int
    source: int  # the trial whose state it has since
    numbers: Mapping[str, float]  # its hyperparameters since


class Store(Database):
    """A run's folder, or a store in memory when `folder` is None."""

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
                _difference(key, there.get(key), now.get(key))
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
        with self._writing():
            self._db.execute("INSERT INTO meta VALUES ('specification', ?)", (json.dumps(wanted),))
            self._db.execute(
                f"CREATE TABLE reports (trial INTEGER, step INTEGER, turn INTEGER{columns},"
                " PRIMARY KEY (trial, step)) WITHOUT ROWID"
            )
        self._metrics = tuple(metrics)
        return False

    def note(self, **notes: Any) -> None:
        """Keeps facts about the run, such as the plan, for later readers."""
        with self._writing():
            self._db.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                [(key, json.dumps(value)) for key, value in notes.items()],
            )

    def notes(self) -> dict[str, Any]:
        """What `note` was given."""
        with self._readable():
            rows = self._db.execute("SELECT key, value FROM meta WHERE key != 'specification'")
            return {key: json.loads(value) for key, value in rows}

    def add_trials(
        self,
        configs: Sequence[tuple[int, Mapping[str, Any]]],
        turn: int = 0,
        wanted: int | None = None,
    ) -> None:
        """Adds trials that are still to run.

        Args:
          configs: number and configuration of each.
          turn: in which they were asked for.
          wanted: how many were asked for, to be asked for again by a resumed run.
        """
        with self._writing():
            self._db.executemany(
                "INSERT INTO trials (trial, config, status, steps, asked)"
                " VALUES (?, ?, 'pending', 0, ?)",
                [(trial, json.dumps(config), turn) for trial, config in configs],
            )
            if wanted is not None:
                self._db.execute("INSERT INTO events VALUES (?, 'ask', ?)", (turn, wanted))

    def record(
        self,
        reports: Iterable[tuple[Any, ...]] = (),
        ended: Sequence[Ended] = (),
        started: Sequence[tuple[int, int]] = (),
        states: Sequence[tuple[int, float, bytes]] = (),
        keep: int = 0,
        *,
        turn: int = 0,
        bred: Sequence[Bred] = (),
        event: str | None = None,
    ) -> None:
        """Writes what a turn brought, in one transaction.

        Args:
          reports: rows of trial, step and one value for each metric.
          ended: trials that ended; one that had ended before stays as it was.
          started: trial and lane of those that took a lane.
          states: trial, score (larger is better) and serialised state.
          keep: how many of the best states stay.
          turn: its number.
          bred: what a population did.
          event: what the turn was, if no segment's collection.
        """
        places = ", ".join("?" * (2 + len(self._metrics)))
        with self._writing():
            self._db.executemany(
                f"INSERT OR REPLACE INTO reports VALUES (?, ?, {turn:d}{places[4:]})", reports
            )
            self._db.executemany(
                "UPDATE trials SET status='running', started=?, lane=?"
                " WHERE trial=? AND status='pending'",
                [(turn, lane, trial) for trial, lane in started],
            )
            self._db.executemany(
                "UPDATE trials SET status=?, steps=?, final=?, ended=? WHERE trial=?"
                " AND status IN ('pending', 'running')",
                [
                    (e.status, e.steps, json.dumps(e.final) if e.final else "{}", turn, e.trial)
                    for e in ended
                ],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO lineage VALUES (?, ?, ?, ?, ?)",
                [(b.trial, b.report, turn, b.source, json.dumps(b.numbers)) for b in bred],
            )
            if event is not None:
                self._db.execute("INSERT INTO events VALUES (?, ?, 0)", (turn, event))
            self._db.executemany("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", states)
            if states:
                self._db.execute(
                    "DELETE FROM states WHERE trial NOT IN"
                    " (SELECT trial FROM states ORDER BY score DESC, trial LIMIT ?)",
                    (keep,),
                )

    def sync(self) -> None:
        """Makes sure that what was recorded is on the disk, and not only with the system."""
        with self._readable():
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def roll_back(self, turn: int) -> None:
        """Forgets what was recorded after `turn`, for a run that makes those turns again."""
        with self._writing():
            self._db.execute("DELETE FROM reports WHERE turn > ?", (turn,))
            self._db.execute("DELETE FROM lineage WHERE turn > ?", (turn,))
            # Trials are asked for after a turn's segment, and so after its checkpoint.
            self._db.execute("DELETE FROM trials WHERE asked >= ? AND asked > 0", (turn,))
            self._db.execute(
                "DELETE FROM events WHERE turn > ? OR (kind = 'ask' AND turn = ? AND turn > 0)",
                (turn, turn),
            )
            self._db.execute(
                "UPDATE trials SET status='running', steps=0, final=NULL, ended=NULL"
                " WHERE ended > ?",
                (turn,),
            )
            self._db.execute(
                "UPDATE trials SET status='pending', started=NULL, lane=NULL"
                " WHERE started > ? OR (started IS NULL AND ended IS NULL)",
                (turn,),
            )
            self._db.execute(
                "DELETE FROM states WHERE trial NOT IN (SELECT trial FROM trials"
                " WHERE status NOT IN ('pending', 'running'))"
            )

    def forget_running(self) -> None:
        """Forgets what trials that did not end reported: they start again."""
        running = "(SELECT trial FROM trials WHERE status IN ('pending', 'running'))"
        with self._writing():
            self._db.execute(f"DELETE FROM reports WHERE trial IN {running}")
            self._db.execute(f"DELETE FROM lineage WHERE trial IN {running}")
            self._db.execute(
                "UPDATE trials SET status='pending', started=NULL, lane=NULL"
                " WHERE status = 'running'"
            )

    def trials(self) -> list[tuple[int, dict[str, Any], str, int, dict[str, float]]]:
        """Every trial: number, configuration, status, steps, test metrics."""
        with self._readable():
            return [
                (trial, json.loads(config), status, steps, json.loads(final or "{}"))
                for trial, config, status, steps, final in self._db.execute(
                    "SELECT trial, config, status, steps, final FROM trials ORDER BY trial"
                )
            ]

    def config(self, trial: int) -> dict[str, Any]:
        """The configuration of one trial."""
        with self._readable():
            row = self._db.execute("SELECT config FROM trials WHERE trial=?", (trial,)).fetchone()
            return json.loads(row[0]) if row else {}

    def counts(self) -> dict[str, int]:
        """How many trials have each status."""
        with self._readable():
            return dict(self._db.execute("SELECT status, COUNT(*) FROM trials GROUP BY status"))

    def ended(self) -> np.ndarray:
        """The numbers of the trials that ended, ascending."""
        with self._readable():
            rows = self._db.execute(
                "SELECT trial FROM trials WHERE status NOT IN ('pending', 'running') ORDER BY trial"
            )
            return np.fromiter((trial for (trial,) in rows), np.int64)

    def seats(self) -> dict[int, tuple[int, int, int | None]]:
        """The turn and the lane in which each trial started, and the turn in which it ended."""
        with self._readable():
            rows = self._db.execute(
                "SELECT trial, started, lane, ended FROM trials WHERE started IS NOT NULL"
            )
            return {trial: (started, lane, ended) for trial, started, lane, ended in rows}

    def segments(self) -> np.ndarray:
        """Rows of turn, trial and how many reports the trial made in that turn, by turn."""
        with self._readable():
            if not self._metrics:
                return np.zeros((0, 3), np.int64)
            rows = self._db.execute(
                "SELECT turn, trial, COUNT(*) FROM reports GROUP BY turn, trial"
                " ORDER BY turn, trial"
            ).fetchall()
            return np.array(rows, np.int64).reshape(len(rows), 3)

    def last_turn(self) -> int:
        """The last turn of which anything is recorded."""
        with self._readable():
            (turn,) = self._db.execute(
                "SELECT MAX(t) FROM (SELECT MAX(turn) AS t FROM reports UNION"
                " SELECT MAX(ended) FROM trials UNION SELECT MAX(asked) FROM trials)"
            ).fetchone()
            return turn or 0

    def history(self, metric: str) -> Iterator[Turn]:
        """What happened, turn by turn; to be read to its end before anything is recorded."""
        queries = (
            f'SELECT turn, trial, step, "{metric}" FROM reports ORDER BY turn, trial, step',
            "SELECT ended, trial, status FROM trials WHERE ended IS NOT NULL ORDER BY ended, trial",
            "SELECT turn, kind, value FROM events ORDER BY turn, rowid",
        )
        with self._readable():
            parts = [_by_turn(self._db.execute(query)) for query in queries]
            heads = [next(part, None) for part in parts]
            while any(heads):
                turn = min(head[0] for head in heads if head)
                now = [head[1] if head and head[0] == turn else [] for head in heads]
                yield Turn(turn, *now)
                heads = [
                    next(part, None) if head and head[0] == turn else head
                    for part, head in zip(parts, heads)
                ]

    def lineage(self) -> list[Bred]:
        """What a population did to its members, by trial and report."""
        with self._readable():
            return [
                Bred(trial, report, source, json.loads(numbers))
                for trial, report, source, numbers in self._db.execute(
                    "SELECT trial, report, source, numbers FROM lineage ORDER BY trial, report"
                )
            ]

    def reports(self) -> tuple[tuple[str, ...], np.ndarray]:
        """The metrics' names, and rows of trial, step and each metric, as float64."""
        columns = "".join(f', "{name}"' for name in self._metrics)
        with self._readable():
            if not self._metrics:
                return (), np.zeros((0, 2))
            rows = self._db.execute(
                f"SELECT trial, step{columns} FROM reports ORDER BY trial, step"
            ).fetchall()
            table = np.array(rows, dtype=np.float64).reshape(len(rows), 2 + len(self._metrics))
            return self._metrics, table

    def scores(self) -> dict[int, float]:
        """The scores of the states kept, by trial."""
        return dict(self._db.execute("SELECT trial, score FROM states"))

    def state(self, trial: int) -> dict[str, np.ndarray] | None:
        """The kept state of `trial` by path, or None."""
        row = self._db.execute("SELECT state FROM states WHERE trial=?", (trial,)).fetchone()
        return checkpoint.from_bytes(row[0], f"the state of trial {trial}")[0] if row else None


def _by_turn(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    for turn, group in itertools.groupby(rows, key=lambda row: row[0]):
        yield turn, [row[1:] for row in group]


def _difference(key: str, there: str | None, now: str | None) -> str:
    program = key.partition("programs.")[2] if key.startswith("programs.") else None
    if program is not None and there and now:
        which = f" for {program}" if program else ""
        return f"  make_trial{which}: computes something else now"
    return f"  {key}: {there or 'nothing'} there, {now or 'nothing'} now"


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """The entries of nested dicts by their dotted path, as JSON."""
    if not isinstance(value, dict):
        return {path: json.dumps(value)}
    flat: dict[str, str] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{path}.{key}" if path else str(key))
    return flat
