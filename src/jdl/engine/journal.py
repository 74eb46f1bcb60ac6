"""The journal of a run, which records each turn in one transaction and reads it back.

One process writes, and a run killed at any moment leaves complete turns.
Others may read at any time. Every row has the number of the turn that wrote
it, so a run whose order counts can be rolled back to an earlier turn.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jdl._paths import expanded
from jdl.engine import checksums
from jdl.engine.database import StoreError
from jdl.engine.differences import differences
from jdl.engine.events import Record
from jdl.engine.names import check_metrics, quoted
from jdl.engine.tables import Tables

FIRST = -1  # the turn of trials known before the first turn


class Turn(NamedTuple):
    """What the journal has of one turn.

    Attributes:
      turn: its number.
      values: the metric at each report, in order, by trial.
      steps: the step of the last report, by trial.
      ended: status and finite steps, by trial.
      settled: whether the rule decided about waiting trials.
      asked: how many trials each later request asked for.
    """

    turn: int
    values: Mapping[int, Sequence[float]]
    steps: Mapping[int, int]
    ended: Mapping[int, tuple[str, int]]
    settled: bool
    asked: Sequence[int]


class Journal(Tables):
    """A run's file for its one writer, in memory when `folder` is None."""

    def begin(
        self,
        specification: Mapping[str, Any],
        metrics: Sequence[str],
        configs: Sequence[tuple[int, Mapping[str, Any]]],
        **notes: Any,
    ) -> bool:
        """Writes the start of a run in one transaction, or checks it against the recorded one.

        Args:
          specification: equal for two runs only if they are the same run.
          metrics: names of what trials report, sorted.
          configs: number and configuration of the first trials.
          notes: further facts.

        Returns:
          Whether the run had been started before.

        Raises:
          StoreError: the folder holds a run of another specification; the
            message lists what differs.
        """
        check_metrics(metrics)
        found = self.specification()
        wanted = json.loads(json.dumps(specification))
        if found is not None:
            if different := differences(found, wanted):
                raise StoreError(
                    f"{self.folder} holds a run of another specification:\n"
                    + "\n".join(different)
                    + "\nGive another folder, or the same arguments to resume that run."
                )
            return True
        columns = "".join(f", {quoted(name)} REAL" for name in metrics)
        meta = {"specification": wanted, "run": uuid.uuid4().hex, **notes}
        with self._writing():
            self._db.execute(
                f"CREATE TABLE reports (trial INTEGER, step INTEGER, turn INTEGER, crc INTEGER"
                f"{columns}, PRIMARY KEY (trial, step)) WITHOUT ROWID"
            )
            if self.folder is not None:
                checksums.sign(self._db)
                checksums.keep(self._db)
            self._note(meta)
            self._add(configs, FIRST)
        self.metrics = tuple(metrics)
        return False

    def note(self, **notes: Any) -> None:
        """Records facts about the run, such as the plan."""
        with self._writing():
            self._note(notes)

    def _note(self, notes: Mapping[str, Any]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)",
            [(key, json.dumps(value)) for key, value in notes.items()],
        )

    def _add(self, configs: Sequence[tuple[int, Mapping[str, Any]]], turn: int) -> None:
        self._db.executemany(
            "INSERT INTO trials (trial, config, status, steps, asked)"
            " VALUES (?, ?, 'pending', 0, ?)",
            [(trial, json.dumps(config), turn) for trial, config in configs],
        )

    def asked(
        self, turn: int, wanted: int, configs: Sequence[tuple[int, Mapping[str, Any]]]
    ) -> None:
        """Adds trials that the search gave when it was asked for `wanted` after `turn`."""
        with self._writing():
            self._add(configs, turn)
            self._db.execute("INSERT INTO events VALUES (?, 'ask', ?, NULL)", (turn, wanted))

    def check_asked(self, configs: Sequence[tuple[int, Mapping[str, Any]]], search: str) -> None:
        """Checks the first and the last trial that a resumed search gives again.

        Raises:
          StoreError: it gives other trials than before.
        """
        for trial, config in configs[:: max(1, len(configs) - 1)]:
            if (recorded := self.config(trial)) != json.loads(json.dumps(config)):
                raise StoreError(
                    f"The search {search} gives {config} for trial {trial}, but {self.folder} "
                    f"has {recorded}. A search must depend only on what it is asked and told, so "
                    "the run cannot be resumed. Give another folder."
                )

    def append(
        self,
        record: Record,
        reports: Iterable[tuple[Any, ...]] = (),
        tests: Mapping[int, Mapping[str, float]] = {},
        states: Sequence[tuple[int, float, bytes]] = (),
        keep: int = 0,
    ) -> None:
        """Records a turn in one transaction.

        Args:
          record: the turn.
          reports: rows of trial, step and one value for each metric.
          tests: test metrics by trial.
          states: trial, score (larger is better) and serialised state.
          keep: how many of the best states to keep.
        """
        turn = record.turn
        places = ", ".join("?" * (2 + len(self.metrics)))
        with self._writing():
            self._note({"turn": turn})
            self._db.executemany(
                f"INSERT OR REPLACE INTO reports VALUES (?, ?, {turn:d}, NULL{places[4:]})", reports
            )
            self._db.executemany(
                "UPDATE trials SET status='running', started=?, lane=?"
                " WHERE trial=? AND status='pending'",
                [(turn, lane, trial) for trial, lane in record.started],
            )
            self._db.executemany(
                "UPDATE trials SET status=?, steps=?, final=?, ended=? WHERE trial=?"
                " AND status IN ('pending', 'running')",
                [
                    (e.status, e.steps, json.dumps(tests.get(e.trial, {})), turn, e.trial)
                    for e in record.ended
                ],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO lineage VALUES (?, ?, ?, ?, ?, NULL)",
                [
                    (b.trial, b.report, turn, b.source, json.dumps(b.numbers))
                    for b in record.exchanged
                ],
            )
            if record.kind != "segment":
                self._db.execute("INSERT INTO events VALUES (?, ?, 0, NULL)", (turn, record.kind))
            self._db.executemany("INSERT OR REPLACE INTO states VALUES (?, ?, NULL, ?)", states)
            if states:
                self._prune(keep)

    def _prune(self, keep: int) -> None:
        self._db.execute(
            "DELETE FROM states WHERE trial NOT IN"
            " (SELECT trial FROM states ORDER BY score DESC, trial LIMIT ?)",
            (keep,),
        )

    def absorb(self, part: Tables, first: int, turn: int, keep: int) -> int:
        """Copies the trials of another run of the same metrics, after those that are here.

        Args:
          part: the other run.
          first: the number that its first trial gets.
          turn: the last one here, after which its turns come.
          keep: how many of the best states to keep.

        Returns:
          The last turn.
        """
        columns = ("trial", "config", "status", "steps", "final", "started", "lane", "ended")
        trials = part.rows("trials", columns)
        reports = part.rows("reports", ("trial", "step", "turn", *map(quoted, self.metrics)))
        states = part.rows("states", ("trial", "score", "state"))
        places = ", ?" * len(self.metrics)
        with self._writing():
            self._db.executemany(
                f"INSERT INTO trials ({', '.join(columns)}, asked)"
                f" VALUES (?, ?, ?, ?, ?, ?, ?, ?, {FIRST})",
                [
                    (trial + first, *row, start + turn, lane, end + turn)
                    for trial, *row, start, lane, end in trials
                ],
            )
            self._db.executemany(
                f"INSERT INTO reports VALUES (?, ?, ?, NULL{places})",
                [(trial + first, step, at + turn, *row) for trial, step, at, *row in reports],
            )
            self._db.executemany(
                "INSERT INTO states VALUES (?, ?, NULL, ?)",
                [(trial + first, *row) for trial, *row in states],
            )
            self._prune(keep)
        return turn + part.notes()["turn"]

    def sync(self) -> None:
        """Makes sure that all records are on the disk, not only in the system's cache."""
        with self._readable():
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def roll_back(self, turn: int) -> None:
        """Deletes what was recorded after `turn`, for a run that repeats those turns."""
        with self._writing():
            self._note({"turn": turn})
            self._db.execute("DELETE FROM reports WHERE turn > ?", (turn,))
            self._db.execute("DELETE FROM lineage WHERE turn > ?", (turn,))
            # Trials are asked for after a turn's segment, and so after its checkpoint.
            self._db.execute("DELETE FROM trials WHERE asked >= ?", (turn,))
            self._db.execute(
                "DELETE FROM events WHERE turn > ? OR (kind = 'ask' AND turn = ?)", (turn, turn)
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
        """Deletes the reports of unfinished trials, which start again."""
        running = "(SELECT trial FROM trials WHERE status IN ('pending', 'running'))"
        with self._writing():
            self._db.execute(f"DELETE FROM reports WHERE trial IN {running}")
            self._db.execute(f"DELETE FROM lineage WHERE trial IN {running}")
            self._db.execute(
                "UPDATE trials SET status='pending', started=NULL, lane=NULL"
                " WHERE status = 'running'"
            )

    def last_turn(self) -> int:
        """The number of the last turn that was written, though it may have brought nothing."""
        return self.notes().get("turn", 0)

    def history(self, metric: str) -> Iterator[Turn]:
        """The recorded turns in order; read them all before writing anything."""
        queries = (
            f"SELECT turn, trial, step, {quoted(metric)} FROM reports ORDER BY turn, trial, step",
            "SELECT ended, trial, status, steps FROM trials WHERE ended IS NOT NULL"
            " ORDER BY ended, trial",
            "SELECT turn, kind, value FROM events ORDER BY turn, rowid",
        )
        with self._readable():
            parts = [_by_turn(self._db.execute(query)) for query in queries]
            heads = [next(part, None) for part in parts]
            while any(heads):
                turn = min(head[0] for head in heads if head)
                now = [head[1] if head and head[0] == turn else [] for head in heads]
                yield _turn(turn, *now)
                heads = [
                    next(part, None) if head and head[0] == turn else head
                    for part, head in zip(parts, heads)
                ]


def recorded_plans(folder: str | os.PathLike[str] | None) -> dict[str, Any]:
    """The plan of each group of the run in `folder`, by label; empty without a run."""
    if folder is None or not (expanded(folder) / "run.sqlite").exists():
        return {}
    tables = Tables(folder, write=False)
    try:
        return tables.notes().get("plans", {})
    finally:
        tables.close()


def _turn(turn: int, reports: list[Any], ended: list[Any], events: list[Any]) -> Turn:
    values: dict[int, list[float]] = {}
    steps: dict[int, int] = {}
    for trial, step, value in reports:
        values.setdefault(trial, []).append(math.nan if value is None else value)
        steps[trial] = step
    return Turn(
        turn,
        values,
        steps,
        {trial: (status, taken) for trial, status, taken in ended},
        any(kind == "settle" for kind, _ in events),
        [count for kind, count in events if kind == "ask"],
    )


def _by_turn(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    for turn, group in itertools.groupby(rows, key=lambda row: row[0]):
        yield turn, [row[1:] for row in group]
