"""What a space may hold: every type of number, ends to the bit, values that Python calls equal."""

from __future__ import annotations

import enum
import itertools
import json
import math

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.toys import dataset, line_trial

from jdl import sweep
from jdl.sweep.space import as_scalars, combinations, names, parse_space, split_static
from jdl.sweep.values import plain

INTEGERS = [kind for kind in "bhilqBHILQ"]
FLOATS = ["e", "f", "d", "g", ml_dtypes.bfloat16, ml_dtypes.float8_e5m2]
RANGES = [sweep.uniform, sweep.log_uniform, sweep.integer]
GRIDS = [sweep.grid, sweep.log_grid]


class Width(enum.IntEnum):
    NARROW = 2


class Name(enum.StrEnum):
    ADAM = "adam"


def from_toml(folder, space):
    """`space` through a TOML file, which is written here by the letter of the format."""

    def written(value):
        if isinstance(value, str):
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        if isinstance(value, list):
            return f"[{', '.join(map(written, value))}]"
        if isinstance(value, dict):
            return f"{{{', '.join(f'{written(k)} = {written(v)}' for k, v in value.items())}}}"
        return str(value).lower() if isinstance(value, bool) else repr(value)

    lines = [f"{written(name)} = {written(entry)}" for name, entry in sweep.to_json(space).items()]
    (folder / "space.toml").write_text("\n".join(lines), encoding="utf-8", newline="")
    return sweep.from_toml(folder / "space.toml")


def assert_same(a, b):
    """Two spaces, told apart by types too."""
    assert list(a) == list(b)
    for name in a:
        assert a[name].kind == b[name].kind and a[name].static == b[name].static
        for field in ("arguments", "points", "when"):
            assert repr(getattr(a[name], field)) == repr(getattr(b[name], field)), (name, field)
        quantiles = (0.0, 0.3, 1 - 2**-53)
        assert repr([a[name].at(u) for u in quantiles]) == repr([b[name].at(u) for u in quantiles])


@pytest.mark.parametrize("kind", INTEGERS + FLOATS)
@pytest.mark.parametrize("make", [np.array, jnp.array, lambda v, kind: np.dtype(kind).type(v)])
def test_scalars_of_every_kind_are_the_numbers_that_they_hold(kind, make):
    if make is jnp.array and np.dtype(kind).itemsize > 4:
        pytest.skip("JAX has it in its 64-bit mode only")
    two, four = make(2, kind), make(4, kind)
    whole = kind in INTEGERS
    of = int if whole else float
    for dimension in RANGES:
        assert repr(dimension(two, four).arguments) == repr(
            [2, 4] if whole or dimension is sweep.integer else [2.0, 4.0]
        )
    for dimension in GRIDS:
        assert dimension(two, four, 2).points == (2.0, 4.0)
        if whole:
            assert dimension(1.0, 9.0, two).points == (1.0, 9.0)
    assert repr(sweep.choice(two, four).points) == repr((of(2), of(4)))
    assert repr(parse_space({"a": two})["a"].points) == repr((of(2),))
    assert parse_space({"a": two})["a"].static == whole
    if whole:
        assert sweep.seeds(two).points == (0, 1) == sweep.folds(two).points
    json.dumps(sweep.to_json({"a": sweep.uniform(two, four), "b": sweep.choice(two, four)}))


def test_other_things_that_are_plain_values_in_disguise():
    assert sweep.choice(*np.arange(1, 3)).points == (1, 2)
    assert repr(sweep.choice(*np.array(["a", "b"])).points) == "('a', 'b')"
    assert repr(sweep.choice(np.True_, jnp.array(False)).points) == "(True, False)"
    assert repr(sweep.choice(Width.NARROW, 4, static=True).points) == "(2, 4)"
    assert repr(sweep.choice(Name.ADAM, "sgd").points) == "('adam', 'sgd')"
    assert repr(sweep.choice((np.int8(3), [1, np.float32(0.5)])).points) == "((3, (1, 0.5)),)"
    when = sweep.when("a", [np.int64(2)], 0.5).when
    assert repr(when) == "(('a', (2,)),)"


@pytest.mark.parametrize("make", [sweep.grid, sweep.log_grid, sweep.seeds, sweep.folds])
@pytest.mark.parametrize(
    "count", [True, np.True_, np.array(True), 2.0, np.float64(2), np.array([2]), "2", None, 0, -1]
)
def test_what_is_no_count(make, count):
    ends = (0.5, 2.0) if make in GRIDS else ()
    with pytest.raises(ValueError, match=r"`count` of `\w+` must be an integer of at least [12], "):
        make(*ends, count)


@pytest.mark.parametrize("make", RANGES + GRIDS)
@pytest.mark.parametrize(
    "end", [True, "1", None, len, 1j, np.array([1.0]), np.datetime64(1, "ns"), np.ma.masked]
)
def test_what_is_no_end(make, end):
    for ends in ((end, 5.0), (0.5, end)):
        with pytest.raises((TypeError, ValueError), match=r"`(low|high)` of `\w+`"):
            make(*ends, *(3,) * (make in GRIDS))


@pytest.mark.parametrize(
    "value",
    [
        *({"a": 1}, len, 1j, b"a", {1}, object(), np.arange(3), sweep.uniform(0, 1)),
        *(np.ma.masked, np.datetime64(1, "ns")),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("where", [lambda v: v, lambda v: ("a", (v,))], ids=["plain", "nested"])
def test_what_is_no_value_says_so_itself(value, where):
    with pytest.raises(TypeError, match="must be a string, a number, a boolean, None, or a tuple"):
        sweep.choice("x", where(value))
    with pytest.raises(TypeError, match=r"must be a string, .* a name, and look it up"):
        sweep.when("a", ("x", where(value)), 0.5)
    if not isinstance(where(value), type(sweep.uniform(0, 1))):
        with pytest.raises(TypeError, match=r"^`model`: "):
            parse_space({"model": where(value)})


def test_nan_is_no_value():
    with pytest.raises(ValueError, match="NaN is no value of a hyperparameter"):
        sweep.choice(0.1, math.nan)
    assert sweep.choice(0.1, math.inf).points == (0.1, math.inf)  # a clip that is off


HELD = (
    2.0**-126,
    (2 - 2.0**-23) * 2.0**127,
)  # the least and the largest of float32, without subnormals
NOT_HELD = [1e-60, -1e-60, 1e-45, 1.17e-38, 3.41e38, -1e300, np.longdouble("1e400")]
WIDE = [2**31, -(2**31) - 1, np.int64(1_700_000_000_000), np.uint64(2**64 - 1)]


@pytest.mark.parametrize("number", NOT_HELD)
def test_numbers_that_float32_does_not_hold_are_refused(number):
    makers = [
        lambda: sweep.choice(number, 0.5),
        lambda: parse_space({"lr": number}),
        lambda: sweep.choice(1, number),
        lambda: sweep.uniform(number, 1e38) if number < 1e38 else sweep.uniform(0, number),
        lambda: sweep.grid(min(number, 0), max(number, 0), 3),
        lambda: as_scalars({"lr": number}),
    ]
    if number > 0:
        makers.append(lambda: sweep.log_uniform(*sorted([number, 1.0])))
        makers.append(lambda: sweep.log_grid(*sorted([number, 1.0]), 3))
    for make in makers:
        with pytest.raises(
            ValueError,
            match=r"float32: 0, or 1.2e-38 to 3.4e\+38 in size|beyond float64|be in \(.*inf\)",
        ):
            make()


@pytest.mark.parametrize("number", WIDE)
def test_integers_that_int32_does_not_hold_are_refused_unless_static(number):
    for make in (
        lambda: sweep.choice(5, number),
        lambda: sweep.integer(*sorted([5, int(number)])),
        lambda: as_scalars({"n": number}),
    ):
        with pytest.raises(ValueError, match="int32, from -2147483648 to 2147483647"):
            make()
    assert sweep.choice(5, number, static=True).points == (5, int(number))
    assert sweep.integer(*sorted([5, int(number)]), static=True).at(0.0) == min(5, int(number))
    assert parse_space({"n": number})["n"].points == (int(number),)


def test_the_ends_of_the_types_are_held():
    for low, high in (HELD, (-HELD[1], HELD[1])):
        numbers = as_scalars({"low": low, "high": high})
        assert np.isfinite([*numbers.values()]).all() and all(numbers.values())
        assert sweep.uniform(low, high).at(0.0) == low
    assert sweep.choice(-(2**31), 2**31 - 1).points == (-(2**31), 2**31 - 1)


@pytest.mark.parametrize(
    "make",
    [
        sweep.choice,
        sweep.uniform,
        sweep.log_uniform,
        lambda a, b: sweep.grid(a, b, 2),
        lambda a, b: sweep.log_grid(a, b, 2),
        lambda a, b: sweep.grid(1.0, 1.0 + 1e7 * (b - a), 101),
        lambda a, b: sweep.log_grid(1.0, 1.0 + 1e7 * (b - a), 101),
    ],
)
def test_numbers_that_are_one_in_float32_are_refused(make):
    """Next to 1 float32 has one number for each 2**-23, about 1.2e-7."""
    make(1.0, 1.0 + 2.4e-7)
    make(1.0, 1.0 + 1e-4)
    with pytest.raises(ValueError, match="which are the same number in float32"):
        make(1.0, 1.0 + 1e-12)


PAIRS = [(True, 1), (False, 0), (0, 0.0), (1, 1.0), (True, 1.0), ((1, 2), "(1, 2)")]
PAIRS += [
    ((1,), (True,)),
    ((1, (2,)), (1, (2.0,))),
    (None, "None"),
    (3, "3"),
    ("a b", "a"),
    (0.0, -0.0),
]


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_values_that_python_calls_equal_are_programs_of_their_own(tmp_path, pair):
    static = True if all(isinstance(v, int | float) for v in pair) else None
    space = parse_space(
        {
            "a": sweep.choice(*pair, static=static),
            "b": sweep.when("a", [pair[1]], sweep.uniform(0.0, 1.0)),
            "c": sweep.when("a", [pair[0]], 0.25),
        }
    )
    assert repr(space["a"].points) == repr(pair)
    first, second = combinations({name: space[name] for name in ("a", "c")})
    assert repr((first, second)) == repr(({"a": pair[0], "c": 0.25}, {"a": pair[1]}))
    statics = {split_static(space, config)[0] for config in (first, second, first)}
    assert len(statics) == 2 and len({*map(names, statics)}) == 2
    assert {repr(dict(s)["a"]) for s in statics} == {*map(repr, pair)}
    assert_same(sweep.from_json(json.loads(json.dumps(sweep.to_json(space)))), space)
    if None not in pair:
        assert_same(from_toml(tmp_path, space), space)


def test_each_of_them_is_run():
    """Of `True` and `1` the second took the first's program."""
    made = []

    def make_trial(hp):
        made.append(repr(hp["a"]))
        return line_trial(0.1 if hp["a"] is True else 0.0)

    space = {"a": sweep.choice(True, 1, (1, (2, 3)), "(1, (2, 3))"), "seed": sweep.seeds(1)}
    results = sweep.run(
        make_trial, space, dataset(), steps=4, batch_size=4, lanes=1, devices=1, progress=False
    )
    assert {*made} == {"True", "1", "(1, (2, 3))", "'(1, (2, 3))'"}
    losses = results.curves("valid_loss")[:, -1]
    assert losses[0] < losses[1] == losses[2] == losses[3]


def test_an_integer_among_traced_numbers_is_refused_where_it_is_a_number_that_is_there():
    with pytest.raises(ValueError, match=r"`choice` has 1 and 1.0, which are the same number"):
        sweep.choice(1, 1.0)
    assert sweep.choice("a", "a", "b").points == ("a", "a", "b")  # twice as likely


# Numbers that float32 tells apart, with all the digits of float64.
numbers = st.floats(2**-100, 2**100, width=32).map(lambda x: x * (1 + 2**-40 / 3))
ends = st.tuples(numbers, numbers).filter(lambda e: np.float32(e[0]) < np.float32(e[1]))


@settings(max_examples=60, deadline=None)
@given(ends, st.integers(2, 9))
def test_ends_are_the_given_ones_to_the_bit(tmp_path_factory, ends, count):
    low, high = ends
    space = {
        "uniform": sweep.uniform(low, high),
        "log_uniform": sweep.log_uniform(low, high),
        "grid": sweep.grid(low, high, 2),
        "log_grid": sweep.log_grid(low, high, 2),
        "options": sweep.choice(low, high),
        "one": low,
    }
    if high / low > 1.001:
        space["more"] = sweep.log_grid(low, high, count)
        space["even"] = sweep.grid(low, high, count)
    parsed = parse_space(space)
    through = sweep.from_json(json.loads(json.dumps(sweep.to_json(space))))
    assert_same(through, parsed)
    assert_same(from_toml(tmp_path_factory.getbasetemp(), space), parsed)
    for name, dimension in through.items():
        assert dimension.at(0.0) == low
        assert low <= dimension.at(1 - 2**-53) <= high
        if dimension.points and name != "one":
            assert (dimension.points[0], dimension.points[-1]) == (low, high)
            assert all(a < b for a, b in itertools.pairwise(dimension.points))


def test_a_grid_between_thirds():
    assert sweep.log_grid(1 / 3, 2 / 3, 3).points == (1 / 3, 0.471405, 2 / 3)
    assert sweep.grid(1 / 3, 2 / 3, 3).points == (1 / 3, 0.5, 2 / 3)
    assert sweep.log_grid(1 / 3, 2 / 3, 1).points == (1 / 3,) == sweep.grid(1 / 3, 2 / 3, 1).points
    narrow = sweep.log_grid(1.000001, 1.000003, 3).points  # narrower than six digits
    assert narrow[0] == 1.000001 and narrow[2] == 1.000003
    assert narrow[1] == pytest.approx(1.000002, abs=1e-9)


def test_draws_of_whole_bounds_are_floats():
    """The largest draw of log_uniform(1, 10) was the integer 10, of another dtype on the device."""
    for dimension in (sweep.uniform(1, 10), sweep.log_uniform(1, 10), sweep.grid(1, 10, 2)):
        assert all(isinstance(dimension.at(u), float) for u in (0.0, 0.5, 1 - 2**-53))


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=4)
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)


def encodable(text):
    return text.encode(errors="replace").decode() == text


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(max_size=4), st.tuples(values, values), min_size=1, max_size=3))
def test_any_names_and_values_go_through_json_and_toml(tmp_path_factory, options):
    """Every space of valid values comes back with types and order, and is told apart by `names`."""
    space = parse_space(
        {name: sweep.choice(*pair, "b", static=None) for name, pair in options.items()}
    )
    assert_same(sweep.from_json(json.loads(json.dumps(sweep.to_json(space)))), space)
    statics = {split_static(space, config)[0] for config in combinations(space)}
    assert len({*map(names, statics)}) == len(statics)
    written = repr(options)
    if "None" not in written and encodable(json.dumps(sweep.to_json(space), ensure_ascii=False)):
        assert_same(from_toml(tmp_path_factory.getbasetemp(), space), space)


def test_a_byte_order_mark_and_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "space.toml").write_bytes(b"\xef\xbb\xbflr = 0.1\r\n")
    assert sweep.from_toml("~/space.toml")["lr"].points == (0.1,)
    with pytest.raises(FileNotFoundError, match=r"none.toml"):
        sweep.from_toml("~/none.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"lr = 2020-01-01", r"`lr`: a value of a hyperparameter must be .* got datetime.date\("),
        (b"lr = {uniform = [1e-60, 1]}", "`lr`: `low` of `uniform` is 1e-60"),
        (b"lr = {choice = [{a = 1}]}", r"`lr`: a value .* got \{'a': 1\}"),
        (b"lr = {grid = [0, 1, true]}", "`lr`: `count` of `grid` must be an integer"),
        (b"lr = nan", "`lr`: NaN is no value"),
        (b"lr = '\xff'", r".*can't decode byte 0xff"),
    ],
)
def test_what_a_file_gets_wrong_is_named(tmp_path, text, message):
    (tmp_path / "space.toml").write_bytes(text)
    with pytest.raises(ValueError, match=r"space\.toml: " + message.replace("^", "")) as error:
        sweep.from_toml(tmp_path / "space.toml")
    assert "lr" in str(error.value) or "decode" in str(error.value)


def test_plain_leaves_plain_values_alone():
    for value in (None, True, 3, 0.5, "a", (1, ("b", None))):
        assert repr(plain(value)) == repr(value)
