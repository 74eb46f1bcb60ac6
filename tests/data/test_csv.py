"""CSV files: what is predicted, what is missing, what is named where, beside pandas."""

from __future__ import annotations

import csv
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdl import data

RANDOM = np.random.default_rng(0)


def load(folder, text, **options):
    path = folder / "a.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return data.csv(path, **({"valid": 0, "test": 0} | options))


def rows_of(splits):
    """Examples of all splits, the features and the target of each, in some order."""
    found = [split for split in splits if split is not None]
    return sorted(
        (*x, y) for xs, ys in found for x, y in zip(xs.tolist(), ys.tolist(), strict=True)
    )


def column(values, start=0.5):
    """A file with one feature and the given targets."""
    return "".join(f"{i + start},{value}\n" for i, value in enumerate(values))


# The targets of a file, the task that they tell, and what they are then.
TOLD = {
    "labels": ([0, 1, 2, 0, 1, 2], "classification", [0, 1, 2, 0, 1, 2]),
    "labels from 1": ([1, 2, 3, 3, 2, 1], "classification", [1, 2, 3, 3, 2, 1]),
    "labels with .0": (
        ["0.0", "1.0", "2.0", "0.0", "1.0", "2.00"],
        "classification",
        [0, 1, 2] * 2,
    ),
    "labels with exponents": (["1e0", "0", "1", "0.0e3"], "classification", [1, 0, 1, 0]),
    "two values": ([-1, 1, -1, 1], "classification", [0, 1, 0, 1]),
    "two sparse values": ([20, 40, 40, 20], "classification", [0, 1, 1, 0]),
    "names": (["red", "blue", " red", "green"], "classification", [2, 0, 2, 1]),
    "grades": (["1", "A", "1", "2"], "classification", [0, 2, 0, 1]),
    "ages": ([23, 45, 31, 45, 60, 23], "regression", [23, 45, 31, 45, 60, 23]),
    "prices": ([250000, 310000, 199999, 250000], "regression", [250000, 310000, 199999, 250000]),
    "a permutation": ([3, 1, 2, 4], "regression", [3, 1, 2, 4]),
    "counts with gaps": ([0, 1, 5, 0, 1, 0, 1, 5], "regression", [0, 1, 5, 0, 1, 0, 1, 5]),
    "fewer than two of each": ([0, 1, 2, 0, 1], "regression", [0, 1, 2, 0, 1]),
    "two values once": ([0, 1], "regression", [0, 1]),
    "one value": ([3, 3], "classification", [0, 0]),
    "from 2": ([2, 3, 4, 2, 3, 4], "regression", [2, 3, 4, 2, 3, 4]),
    "below 0": ([-1, 0, 1, -1, 0, 1], "regression", [-1, 0, 1, -1, 0, 1]),
    "fractions": ([0.5, 1, 2, 1], "regression", [0.5, 1, 2, 1]),
}


@pytest.mark.parametrize("kind", TOLD)
def test_the_task_is_told_from_the_targets_and_said(tmp_path, capsys, kind):
    values, task, expected = TOLD[kind]
    splits = load(tmp_path, column(values))
    said = capsys.readouterr()
    assert f"a.csv: a {task}" in said.err and not said.out
    assert [y for _, y in rows_of(splits)] == expected
    assert splits.train[1].dtype == (np.int32 if task == "classification" else np.float32)


@pytest.mark.parametrize("kind", TOLD)
def test_the_task_that_is_given_is_not_said(tmp_path, capsys, kind):
    values, _, _ = TOLD[kind]
    numbers = pd.to_numeric(pd.Series(values), errors="coerce")
    if numbers.isna().any():
        with pytest.raises(
            data.DataError, match=r"line \d, column 2: expected a number, got '[rA]"
        ):
            load(tmp_path, column(values), task="regression")
    else:
        splits = load(tmp_path, column(values), task="regression")
        assert [y for _, y in rows_of(splits)] == numbers.astype("f4").tolist()
        assert splits.train[1].dtype == np.float32
    if kind == "fractions":
        with pytest.raises(
            data.DataError, match=r"line 1, column 2: expected a whole .* got '0.5'"
        ):
            load(tmp_path, column(values), task="classification")
    else:
        splits = load(tmp_path, column(values), task="classification")
        names = pd.Series(values).map(lambda v: str(v).strip())
        keys = names if numbers.isna().any() else numbers
        codes = pd.Categorical(keys).codes.tolist()
        labels = [y for _, y in rows_of(splits)]
        # Either the numbers themselves or their codes; the same ones are the same either way.
        assert labels in (codes, keys.tolist()) and splits.train[1].dtype == np.int32
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 3, 3], [0, 3, 3]),  # half of 0 to 3 are there
        ([0, 4, 4], [0, 1, 1]),
        ([1, 3, 5, 2, 5], [1, 3, 5, 2, 5]),
        ([1, 9, 5, 2, 5], [0, 3, 2, 1, 2]),
        ([-1, 0, 1], [0, 1, 2]),
        ([10, 9, 100], [1, 0, 2]),  # in the order of numbers, not of words
    ],
)
def test_numbers_are_labels_as_they_are_unless_most_would_be_missing(tmp_path, values, labels):
    splits = load(tmp_path, column(values), task="classification")
    assert [y for _, y in rows_of(splits)] == labels


def test_what_is_said(tmp_path, capsys):
    load(tmp_path, column(["red", "blue", "red"]))
    said = capsys.readouterr().err
    assert said.endswith(
        "a classification of 2 classes (0 = blue, 1 = red), told from its targets.\n"
    )
    load(tmp_path, column([0, 1, 1]))
    assert 'of 2 classes, told from its targets; task="regression" takes' in capsys.readouterr().err
    load(tmp_path, column([5, 7, 9]))
    assert 'a regression, told from its targets; task="classif' in capsys.readouterr().err


def test_wide_targets(tmp_path):
    """Identifiers beyond int64 are names of classes; they are numbers of a regression as well."""
    wide = [10**30, 10**30 + 1, 10**30]
    assert [y for _, y in rows_of(load(tmp_path, column(wide)))] == [0, 1, 0]
    splits = load(tmp_path, column(wide), task="regression")
    np.testing.assert_allclose(splits.train[1], 1e30, rtol=1e-6)
    with pytest.raises(data.DataError, match=r"line 2, column 2: .* float32 holds, up to 3.4e\+38"):
        load(tmp_path, column([1.5, 1e39, 2]))


@pytest.mark.parametrize(
    "mark", ["", " ", "NA", "N/A", "n/a", "?", "nan", "NaN", "null", "NULL", "None", "<NA>", "#N/A"]
)
@pytest.mark.parametrize("others", [["0", "1"], ["0.5", "1.5"], ["red", "blue"]])
@pytest.mark.parametrize("task", [None, "classification", "regression"])
def test_a_missing_target_is_named_by_line_and_column(tmp_path, mark, others, task):
    text = column([*others, mark, *others])
    with pytest.raises(data.DataError, match=r"line 3, column 2: the target is missing") as error:
        load(tmp_path, text, task=task)
    assert error.value.byte == text.index("2.5,")
    named = "size,colour\n" + text
    with pytest.raises(data.DataError, match=r"line 4, column 2 \(colour\): the target is missing"):
        load(tmp_path, named, task=task)
    swapped = "\n".join(",".join(line.split(",")[::-1]) for line in named.splitlines())
    with pytest.raises(data.DataError, match=r"line 4, column 1 \(colour\): the target is missing"):
        load(tmp_path, swapped, target=0, task=task)


def test_a_comma_at_the_end_of_every_line(tmp_path):
    with pytest.raises(data.DataError, match=r"line 2, column 4: .* Does the line end in a delim"):
        load(tmp_path, "a,b,c,\n1,2,0,\n3,4,1,\n")
    with pytest.raises(data.DataError, match="line 2, column 3: the target is missing"):
        load(tmp_path, "1\t2\t0\n3\t4\t\n")  # which is no space to strip


def test_one_word_among_numbers_is_no_class(tmp_path):
    with pytest.raises(
        data.DataError, match=r"line 3, column 2: expected a number, as other .*'x'"
    ):
        load(tmp_path, column([0.5, 1.5, "x", 2.5]))


def test_the_largest_class_may_fall_into_validation(tmp_path):
    """Counted over the file: 21 lines, of which one, the last of class 3, was held out."""
    values = [0, 1, 2] * 7
    for seed in range(12):
        splits = load(
            tmp_path, column([*values, 3]), valid=0.3, test=0.3, seed=seed, stratify=False
        )
        assert data.classes(splits) == 4 and data.check(splits) is not None
    rare = load(tmp_path, column([*values, 3]), valid=0.3, test=0.3)
    assert 3 in rare.train[1]


NUMBERS = "0.5,1,0\n2.5,3,1\n4.5,6,0\n"
AS_ROWS = [(0.5, 1, 0), (2.5, 3, 1), (4.5, 6, 0)]


@pytest.mark.parametrize(
    ("first", "options", "header"),
    [
        ("a,b,c", {}, True),
        ("0,1,2", {}, True),  # pandas' own names
        ("1990,1991,1992", {}, True),
        ("0,1,target", {}, True),
        ("2000,1990,target", {}, True),
        (",1,target", {}, True),
        ("7,8,7", {"header": True}, True),
        ("7,8,1", {"target": "1"}, True),
        ("7,8,1", {}, False),
        ("0,1,2", {"header": False}, False),
    ],
)
def test_a_header_of_numbers(tmp_path, capsys, first, options, header):
    splits = load(tmp_path, f"{first}\n{NUMBERS}", task="regression", **options)
    extra = [] if header else [tuple(map(float, first.split(",")))]
    assert rows_of(splits) == sorted([*AS_ROWS, *extra])
    told = first[0] in "012," and header and not options
    assert ("is taken as the header; header=False" in capsys.readouterr().err) == told


def test_rows_that_count_up_are_rows(tmp_path):
    splits = load(tmp_path, "0,1,2\n3,4,5\n6,7,8\n", task="regression")
    assert len(rows_of(splits)) == 3
    names = load(tmp_path, "0,1,kind\n3.5,4,red\n6,7,blue\n1,2,red\n")
    assert len(rows_of(names)) == 4  # "kind" may be a class: say header=True
    assert len(rows_of(load(tmp_path, "0,1,2,kind\n3.5,4,1,red\n6,7,1,red\n1,2,1,blue\n"))) == 3


def test_a_missing_feature_in_the_first_line_makes_it_no_header(tmp_path):
    with pytest.raises(data.DataError, match="line 1, column 2: expected a number, got ''"):
        load(tmp_path, "1,,0\n3,4,1\n")
    assert rows_of(load(tmp_path, ",x,y\n1,2,0\n3,4,0\n")) == [(1, 2, 0), (3, 4, 0)]


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-Infinity", "1e39", "-3.5e38", "x", "", "1_0", "٣"]
)
def test_a_bad_value_is_named_by_its_line_and_column(tmp_path, value):
    """Not by its place after the examples were shuffled and split."""
    lines = [f"{i},{i * i}.5,{i % 2}" for i in range(30)]
    lines[17] = f"{value},289.5,1"
    text = "size,area,class\n\n" + "\n".join(lines)
    with pytest.raises(data.DataError, match=r"line 20, column 1 \(size\): ") as error:
        load(tmp_path, text, valid=0.3, test=0.3)
    assert error.value.byte == len(text[: text.index(lines[17])].encode())
    assert value in str(error.value) or value in ("-Infinity",)
    lines[17] = f"17,289.5,{value}"
    if value not in ("x", "٣", "1_0", "nan", "inf", "-Infinity", ""):
        with pytest.raises(data.DataError, match=r"line 20, column 3 \(class\): "):
            load(tmp_path, "size,area,class\n\n" + "\n".join(lines), task="regression")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("kind", ["numbers", "names", "quoted"])
def test_the_delimiter_is_recognised(tmp_path, delimiter, header, kind):
    frame = pd.DataFrame(RANDOM.normal(size=(12, 3)).round(3), columns=["a, b", "c; d", "e|f"])
    frame["y"] = RANDOM.integers(0, 2, 12)
    if kind != "numbers":
        frame["y"] = frame["y"].map({0: "no", 1: "yes"})
    quoting = csv.QUOTE_ALL if kind == "quoted" else csv.QUOTE_MINIMAL
    text = frame.to_csv(index=False, sep=delimiter, header=header, quoting=quoting)
    splits = load(tmp_path, text)
    values = pd.read_csv(io.StringIO(text), sep=delimiter, header=0 if header else None)
    codes = pd.Categorical(values.iloc[:, -1]).codes
    expected = sorted((*x, y) for x, y in zip(values.iloc[:, :-1].astype("f4").values, codes))
    np.testing.assert_array_equal(rows_of(splits), expected)


def test_a_decimal_comma_is_named(tmp_path):
    for text in ("1,5;2;0\n2,5;3;1\n", "a;b;c\n1,5;2;0\n"):
        number = text.count("\n", 0, text.index("1,5")) + 1
        message = rf"line {number}, column 1.*: expected a number, got '1,5'. Write a decimal point"
        with pytest.raises(data.DataError, match=message):
            load(tmp_path, text, header="a" in text)
    with pytest.raises(data.DataError, match="Give `delimiter` if the columns are told apart by"):
        load(tmp_path, "1:2\n3:4\n")


def test_columns_of_one_name(tmp_path):
    with pytest.raises(data.DataError, match=r"`target` names 2 columns: got 'a' of a, b, a\."):
        load(tmp_path, "a,b,a\n1,2,3\n", target="a")
    with pytest.raises(data.DataError, match=r"`target` names no column: got 'c' of a, b, a\."):
        load(tmp_path, "a,b,a\n1,2,3\n", target="c")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"task": "ranking"},
            "`task` must be one of 'classification', 'regression', got task='rank",
        ),
        (
            {"target": "a", "header": False},
            "`target` is a name, 'a', so `header` must not be False",
        ),
        ({"delimiter": "; "}, "`delimiter` must be one character"),
    ],
)
def test_arguments(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, NUMBERS, **options)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00"), min_size=1, max_size=5)
MARKS = {*pd.io.parsers.readers.STR_NA_VALUES, "?"}


def is_name(text):
    """Whether pandas, too, takes it for text, and strips nothing of it."""
    return text.strip() == text and text not in MARKS and pd.isna(pd.to_numeric(text, "coerce"))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(NAMES.filter(is_name), min_size=2, max_size=2, unique=True),
    st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=4, max_size=9),
    st.sampled_from(",;\t|"),
)
def test_what_pandas_writes_is_read(tmp_path_factory, names, numbers, delimiter):
    """Any names of columns and classes, any numbers: as pandas reads them back."""
    names = [name for name in names if name[0] not in "+-.0123456789"] or ["a", "b"]
    classes = [names[i % len(names)] for i in range(len(numbers))]
    frame = pd.DataFrame({"x" + names[0]: numbers, "y" + names[-1]: classes})
    path = tmp_path_factory.getbasetemp() / "any.csv"
    frame.to_csv(path, index=False, sep=delimiter, encoding="utf-8", lineterminator="\n")
    splits = data.csv(path, delimiter=delimiter, valid=0, test=0, target="y" + names[-1])
    expected = [sorted({*classes}).index(c) for c in classes]
    found = sorted(zip(splits.train[0][:, 0].tolist(), splits.train[1].tolist()))
    assert found == sorted(zip(frame.iloc[:, 0].astype("f4").tolist(), expected))
