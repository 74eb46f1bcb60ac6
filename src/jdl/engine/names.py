"""Checks of the names of hyperparameters and metrics, which files, tables and pages must hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

COLUMNS = ("trial", "status", "steps")
"""Columns that every table of trials has."""

MOST_METRICS = 1996  # SQLite allows 2,000 columns in a table, and four are taken


def check_name(kind: str, name: Any) -> None:
    """Raises ValueError unless `name` is text that a file can hold and no column has yet."""
    if not isinstance(name, str):
        raise ValueError(f"A {kind}'s name must be a string, got {name!r}.")
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise ValueError(
            f"A {kind}'s name must be text that UTF-8 holds, without lone surrogates, got {name!r}."
        )
    if name in COLUMNS:
        raise ValueError(
            f"A {kind} cannot be called {name!r}: every table of trials has a column of that name. "
            "Give it another one."
        )


def check_metrics(metrics: Iterable[str], taken: Iterable[str] = ()) -> None:
    """Raises ValueError unless all `metrics` can be columns of one table.

    Args:
      metrics: their names.
      taken: names of hyperparameters, which stand in the same table.
    """
    seen: dict[str, str] = {}
    taken = {*taken}
    for name in metrics:
        check_name("metric", name)
        if "\0" in name:
            raise ValueError(f"A metric's name must be text without NUL, got {name!r}.")
        if name in taken:
            raise ValueError(
                f"{name!r} is both a hyperparameter and a metric, but a table has one column of "
                "that name. Call the hyperparameter something else."
            )
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise ValueError(
                f"The metrics {other!r} and {name!r} differ in case only, which a table of SQLite "
                "does not tell apart. Call one something else."
            )
    if len(seen) > MOST_METRICS:
        raise ValueError(f"At most {MOST_METRICS:,} metrics can be reported, got {len(seen):,}.")


def quoted(name: str) -> str:
    """`name` as SQL has a column's name.

    >>> print(quoted('5" disk'))
    "5"" disk"
    """
    return '"' + name.replace('"', '""') + '"'
