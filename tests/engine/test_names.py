"""Names of hyperparameters and metrics: what is refused, and what SQLite makes of the rest."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdl.engine.names import COLUMNS, MOST_METRICS, check_metrics, check_name, quoted

texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=6)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (3, "A metric's name must be a string, got 3"),
        (None, "A metric's name must be a string, got None"),
        ("a\ud800", "without lone surrogates"),
        ("\udfff", "without lone surrogates"),
        *((column, f"A metric cannot be called '{column}'") for column in COLUMNS),
    ],
)
def test_names_that_nothing_holds(name, said):
    with pytest.raises(ValueError, match=said):
        check_name("metric", name)
    with pytest.raises(ValueError, match=said):
        check_metrics(["loss", name])


def test_names_that_are_near_to_those():
    for name in ("Trial", "trial ", "steps_", "", "\ud7ff\ue000", "\0"):
        check_name("hyperparameter", name)


@pytest.mark.parametrize(
    ("metrics", "taken", "said"),
    [
        (["loss", "a\0b"], (), "without NUL"),
        (["loss", "lr"], ["lr"], "'lr' is both a hyperparameter and a metric"),
        (["Loss", "x", "loss"], (), "'Loss' and 'loss' differ in case only"),
    ],
)
def test_metrics_that_one_table_cannot_hold(metrics, taken, said):
    with pytest.raises(ValueError, match=said):
        check_metrics(metrics, taken)
    check_metrics(metrics[:1], taken)


def test_as_many_metrics_as_a_table_has_columns_for():
    most = [f"m{i}" for i in range(MOST_METRICS)]
    check_metrics(most)
    check_metrics([*most, "m0"])
    with pytest.raises(ValueError, match="At most 1,996 metrics can be reported, got 1,997"):
        check_metrics([*most, "one more"])
    others = ["trial", "turn", "step", "crc"]  # of a table of reports
    with sqlite3.connect(":memory:") as db:
        db.execute(f"CREATE TABLE t ({', '.join(map(quoted, [*others, *most]))})")
        with pytest.raises(sqlite3.OperationalError, match="too many columns"):
            db.execute(f"CREATE TABLE u ({', '.join(map(quoted, [*others, *most, 'm']))})")


@given(st.lists(texts, min_size=1, max_size=4))
def test_whatever_is_accepted_is_a_column(metrics):
    try:
        check_metrics(metrics)
    except ValueError:
        return
    names = list(dict.fromkeys(metrics))
    with sqlite3.connect(":memory:") as db:
        db.execute(f"CREATE TABLE t ({', '.join(map(quoted, [*COLUMNS, *names]))})")
        found = [row[1] for row in db.execute("PRAGMA table_info(t)")]
    assert found == [*COLUMNS, *names]
