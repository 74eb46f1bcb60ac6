"""CSV files: tables of numbers, with a column of labels, names or numbers to predict."""

from __future__ import annotations

import csv as csv_format
import math
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jdl._checks import check_choice
from jdl.data import preprocess
from jdl.data.dataset import Dataset, from_arrays, prepare
from jdl.data.error import DataError
from jdl.data.reading import MAX_BYTES, Path, read_text

DELIMITERS = ",;\t|"
# What pandas, too, takes for a missing value, and the mark of the UCI repository.
MISSING = {
    *("", "?", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"),
    *("1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
}
LARGEST = float(np.finfo(np.float32).max)


class Row(NamedTuple):
    """A line that is not blank, split into fields."""

    line: int  # from 1
    byte: int  # its first
    fields: list[str]


def csv(
    path: Path,
    *,
    target: int | str = -1,
    task: str | None = None,
    header: bool | None = None,
    delimiter: str | None = None,
    valid: float | int = 0.1,
    test: float | int = 0.2,
    seed: int = 0,
    stratify: bool = True,
    standardize: bool = False,
    max_bytes: int = MAX_BYTES,
) -> Dataset:
    """A `Dataset` from a table of numbers, one example a line.

    Args:
      path: the file in UTF-8, gzipped or not; blank lines are skipped, a quoted
        field may not contain a line break.
      target: the column of the targets, by number (from 0, negative from the
        end) or by its name in the header; the other columns are `x`, as float32.
      task: "classification": targets are whole numbers or names. "regression":
        targets are numbers, as float32. None tells it from the targets, and
        prints what it found: names are classes, and so are whole numbers of two
        values, or that run from 0 or 1 without a gap and come twice each on
        average; other numbers are a regression's.
      header: whether the first line has names. None: it has where `target` is
        a name, where it has a field that is no number and later lines do not,
        or where it counts up (0, 1, 2, ...) and the second line does not.
      delimiter: one character; None finds out which of , ; | and tab it is.
      valid: as in `from_arrays`.
      test: as in `from_arrays`.
      seed: as in `from_arrays`.
      stratify: as in `from_arrays`.
      standardize: as in `from_arrays`.
      max_bytes: refuse more content than this.

    Returns:
      The splits. Names are numbered in sorted order; whole numbers stay as they
      are, unless one is negative or more than half of those below are missing.

    Raises:
      DataError: a field that is no finite number, a missing target, lines of
        different lengths, an unknown column, no lines; names the file, the line
        and the column, both from 1, and the line's first byte.
    """
    if task is not None:
        check_choice("task", task, ("classification", "regression"))
    if delimiter is not None and len(delimiter) != 1:
        raise ValueError(f"`delimiter` must be one character, got delimiter={delimiter!r}.")
    if isinstance(target, str) and header is False:
        raise ValueError(f"`target` is a name, {target!r}, so `header` must not be False.")
    rows = _rows(path, delimiter, max_bytes)
    first = next(rows, None)
    if first is None:
        raise DataError("expected at least one line of numbers.", path, 0)
    column = _column(target, first.fields, path)
    named = True if isinstance(target, str) else header
    if named is None and any(_is_text(f) for f in _others(first.fields, column)):
        named = True
    table = _Table(path, column, first.fields, bool(named))
    second: Row | None = None
    if named is False:
        table.add(first)
    for row in rows:
        second = second or row
        table.add(row)
    if named is None and _names_columns(first, second, column, table.targets):
        print(
            f"{path}: the first line, {first.fields[0]}, {first.fields[1]}, ..., is taken as the "
            "header; header=False makes it an example.",
            file=sys.stderr,
        )
        named = True
    if named is None:
        table.add(first, 0)
    if not table.x:
        raise DataError("expected at least one line of numbers.", path, 0)
    y, found = table.labels_or_numbers(task)
    if task is None:
        print(f"{path}: {found}", file=sys.stderr)
    try:
        dataset = from_arrays(
            np.array(table.x, np.float32), y, valid=valid, test=test, seed=seed, stratify=stratify
        )
    except DataError as error:
        raise DataError(str(error), path) from error
    return prepare(dataset, preprocess.standardize)[0] if standardize else dataset


class _Table:
    """The rows read so far, each checked as it comes."""

    def __init__(self, path: Path, column: int, first: Sequence[str], named: bool):
        self._path, self._column, self._width = path, column, len(first)
        self._names = [field.strip() for field in first] if named else None
        self._rows: list[tuple[int, int]] = []  # line and byte
        self.x: list[list[float]] = []
        self.targets: list[str] = []

    def add(self, row: Row, at: int | None = None) -> None:
        """Adds a row at the end, or as number `at`."""
        if len(row.fields) != self._width:
            message = f"line {row.line}: expected {self._width} fields, got {len(row.fields)}."
            raise DataError(message, self._path, row.byte)
        values = [number(field) for field in _others(row.fields, self._column)]
        if not all(value is not None and abs(value) <= LARGEST for value in values):
            for index, field in enumerate(row.fields):
                value = number(field)
                if index != self._column and (value is None or not abs(value) <= LARGEST):
                    raise self._error(row.line, row.byte, index, _wanted(value, field))
        goal = row.fields[self._column].strip()
        if goal in MISSING:
            ends = self._column == self._width - 1 and not goal
            why = " Does the line end in a delimiter?" if ends else ""
            raise self._error(
                row.line, row.byte, self._column, f"the target is missing, got {goal!r}.{why}"
            )
        at = len(self.x) if at is None else at
        self.x.insert(at, values)  # type: ignore[arg-type]
        self.targets.insert(at, goal)
        self._rows.insert(at, (row.line, row.byte))

    def labels_or_numbers(self, task: str | None) -> tuple[np.ndarray, str]:
        """The targets in the form of the task, and a phrase that names the task."""
        values = [number(goal) for goal in self.targets]
        texts = [i for i, value in enumerate(values) if value is None]
        whole = [value is not None and value.is_integer() for value in values]
        parts = [i for i, value in enumerate(values) if value is not None and not whole[i]]
        if parts and (texts or task == "classification") and task != "regression":
            fix = "" if task else "; with task='regression' all must be numbers"
            wanted = "a whole number or a name, as targets of a classification are"
            if texts and task is None:
                parts, wanted = texts, "a number, as other targets are"
            raise self._target_error(parts[0], f"expected {wanted}{fix}")
        if task == "regression" or (task is None and not texts and not _are_labels(values, whole)):
            for i, value in enumerate(values):
                if value is None or not abs(value) <= LARGEST:
                    raise self._target_error(i, _wanted(value, self.targets[i]))
            found = 'a regression, told from its targets; task="classification" takes whole ones'
            return np.array(values, np.float32), f"{found} as classes."
        if texts:
            keys: list[Any] = list(self.targets)
        else:
            keys = [_integer(goal) for goal in self.targets]
        distinct = sorted({*keys})
        count = len(distinct)
        if not texts and distinct[0] >= 0 and distinct[-1] < 2 * count:
            labels, count = np.array(keys), distinct[-1] + 1
        else:
            place = {key: i for i, key in enumerate(distinct)}
            labels = np.array([place[key] for key in keys])
        shown = [f"{i} = {key}" for i, key in enumerate(distinct[:10])] if count else []
        same = not texts and distinct == list(range(count))
        meaning = "" if same or count != len(distinct) else f" ({', '.join(shown)})"
        fix = "" if texts else '; task="regression" takes them as numbers'
        return labels, f"a classification of {count} classes{meaning}, told from its targets{fix}."

    def _target_error(self, index: int, message: str) -> DataError:
        goal = self.targets[index]
        message = message if message.endswith(".") else f"{message}, got {goal[:40]!r}."
        return self._error(*self._rows[index], self._column, message)

    def _error(self, line: int, byte: int, index: int, message: str) -> DataError:
        name = f" ({self._names[index]})" if self._names and self._names[index] else ""
        return DataError(f"line {line}, column {index + 1}{name}: {message}", self._path, byte)


def number(field: str) -> float | None:
    """The number that a field holds, in the ASCII digits of a file; None if it is none."""
    try:
        return float(field) if field.isascii() and "_" not in field else None
    except ValueError:
        return None


def _integer(goal: str) -> int:
    """The whole number that `goal` writes, "3" or "3.0", exactly."""
    return int(goal) if re.fullmatch(r"[+-]?\d+", goal) else int(float(goal))


def _is_text(field: str) -> bool:
    return number(field) is None and field.strip() not in MISSING


def _wanted(value: float | None, field: str) -> str:
    got = f"got {field.strip()[:40]!r}."
    if value is None:
        comma = re.fullmatch(r"\s*[+-]?\d+,\d+\s*", field)
        return f"expected a number, {got}" + (" Write a decimal point." if comma else "")
    if math.isfinite(value):
        return f"expected a number that float32 holds, up to 3.4e+38, {got}"
    return f"the value is {value}: every value must be finite."


def _are_labels(values: Sequence[float | None], whole: Sequence[bool]) -> bool:
    """Whether numbers look like classes: whole, repeated, from 0 or 1 without a gap."""
    distinct = {value for value in values if value is not None}
    if not all(whole) or len(values) == len(distinct):
        return False
    if len(distinct) <= 2:
        return True
    low, high = min(distinct), max(distinct)
    return low in (0, 1) and high - low + 1 == len(distinct) <= len(values) / 2


def _names_columns(first: Row, second: Row | None, column: int, targets: Sequence[str]) -> bool:
    """Whether a first line whose features are numbers has the names of the columns."""
    if second is None:
        return False
    goal = first.fields[column].strip()
    if _is_text(goal) and not any(map(_is_text, targets)):
        return True
    counted = [
        _others(row.fields, column) if _is_text(goal) else row.fields for row in (first, second)
    ]
    return goal not in targets and _counts_up(counted[0]) and not _counts_up(counted[1])


def _counts_up(fields: Sequence[str]) -> bool:
    """Whether fields are whole numbers, at least three, each one more than the one before."""
    if len(fields) < 3 or not all(re.fullmatch(r"\s*\d{1,9}\s*", f, re.ASCII) for f in fields):
        return False
    return [int(field) - i for i, field in enumerate(fields)] == [int(fields[0])] * len(fields)


def _others(fields: Sequence[str], column: int) -> list[str]:
    return [*fields[:column], *fields[column + 1 :]]


def _column(target: int | str, fields: list[str], path: Path) -> int:
    if isinstance(target, str):
        names = [field.strip() for field in fields]
        if (count := names.count(target)) != 1:
            shown = ", ".join(names[:20])
            found = f"{count} columns" if count else "no column"
            raise DataError(f"`target` names {found}: got {target!r} of {shown}.", path, 0)
        column = names.index(target)
    else:
        column = target + len(fields) if target < 0 else target
    if not 0 <= column < len(fields) or len(fields) < 2:
        raise DataError(
            f"no column {target} beside others in {len(fields)} columns. Give `delimiter` if the "
            "columns are told apart by another character.",
            path,
            0,
        )
    return column


def _rows(path: Path, delimiter: str | None, max_bytes: int) -> Iterator[Row]:
    lines = read_text(path, max_bytes).split(b"\n")
    delimiter = delimiter or _delimiter(lines)
    byte = 0
    for number, line in enumerate(lines, 1):
        start, byte = byte, byte + len(line) + 1
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r")
            if text.strip():
                yield Row(number, start, _split(text, delimiter))
        except (UnicodeDecodeError, csv_format.Error) as error:
            at = start + (error.start if isinstance(error, UnicodeDecodeError) else 0)
            raise DataError(f"line {number}: {error}.", path, at) from error


def _split(text: str, delimiter: str) -> list[str]:
    if '"' not in text:
        return text.split(delimiter)
    return next(csv_format.reader([text], delimiter=delimiter, strict=True))


def _delimiter(lines: Sequence[bytes]) -> str:
    """The character that splits the first lines into equally many fields, mostly numbers."""
    texts = [line.decode(errors="replace").strip("\ufeff\r") for line in lines[:20]]
    texts = [text for text in texts if text.strip()] or [""]
    best, most = max(DELIMITERS, key=lambda d: (texts[0].count(d), d == ",")), 0.0
    for delimiter in DELIMITERS:
        try:
            rows = [_split(text, delimiter) for text in texts]
        except csv_format.Error:
            continue
        fields = [field for row in rows for field in row]
        if len({*map(len, rows)}) == 1 and len(rows[0]) > 1:
            share = 1e-9 + sum(number(field) is not None for field in fields) / len(fields)
            best, most = (delimiter, share) if share > most else (best, most)
    return best
