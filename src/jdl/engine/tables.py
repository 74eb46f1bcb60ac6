"""Reads a run's file: specification, trials, reports, lanes and kept states."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from jdl.engine import checkpoint
from jdl.engine.database import Database
from jdl.engine.events import Exchanged
from jdl.engine.names import quoted


class Tables(Database):
    """A run's file, readable at any time, even while another process writes it."""

    def specification(self) -> dict[str, Any] | None:
        """What the run was started with, or None before it starts."""
        with self._readable():
            row = self._db.execute("SELECT value FROM meta WHERE key='specification'").fetchone()
            return json.loads(row[0]) if row else None

    def rows(self, table: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
        """Columns of a table as they are stored, by trial."""
        with self._readable():
            order = "trial, step" if table == "reports" else "trial"
            query = f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}"
            return self._db.execute(query).fetchall()

    def notes(self) -> dict[str, Any]:
        """The facts that `note` recorded."""
        with self._readable():
            rows = self._db.execute("SELECT key, value FROM meta WHERE key != 'specification'")
            return {key: json.loads(value) for key, value in rows}

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
            if not self.metrics:
                return np.zeros((0, 3), np.int64)
            rows = self._db.execute(
                "SELECT turn, trial, COUNT(*) FROM reports GROUP BY turn, trial"
                " ORDER BY turn, trial"
            ).fetchall()
            return np.array(rows, np.int64).reshape(len(rows), 3)

    def lineage(self) -> list[Exchanged]:
        """The exchanges of a population, by trial and report."""
        with self._readable():
            return [
                Exchanged(trial, report, source, json.loads(numbers))
                for trial, report, source, numbers in self._db.execute(
                    "SELECT trial, report, source, numbers FROM lineage ORDER BY trial, report"
                )
            ]

    def reports(self) -> tuple[tuple[str, ...], np.ndarray]:
        """The metrics' names, and rows of trial, step and each metric, as float64."""
        columns = "".join(f", {quoted(name)}" for name in self.metrics)
        with self._readable():
            if not self.metrics:
                return (), np.zeros((0, 2))
            rows = self._db.execute(
                f"SELECT trial, step{columns} FROM reports ORDER BY trial, step"
            ).fetchall()
            table = np.array(rows, dtype=np.float64).reshape(len(rows), 2 + len(self.metrics))
            return self.metrics, table

    def scores(self) -> dict[int, float]:
        """The scores of the states kept, by trial."""
        with self._readable():
            return dict(self._db.execute("SELECT trial, score FROM states"))

    def state(self, trial: int) -> dict[str, np.ndarray] | None:
        """The kept state of `trial` by path, or None."""
        with self._readable():
            row = self._db.execute("SELECT state FROM states WHERE trial=?", (trial,)).fetchone()
        return checkpoint.from_bytes(row[0], f"the state of trial {trial}")[0] if row else None
