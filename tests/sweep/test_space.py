"""Search spaces: quantiles, what is static, and the round trip through JSON and TOML."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdl import sweep
from jdl.sweep.space import (
    as_scalars,
    combinations,
    configuration,
    finite,
    names,
    parse_space,
    seed_axis,
    split_static,
)

quantiles = st.floats(0, 1, exclude_max=True)
bounds = st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)).filter(lambda b: b[0] < b[1])


@given(bounds, quantiles)
def test_quantiles_stay_inside(ends, u):
    low, high = ends
    assert low <= sweep.uniform(low, high).at(u) <= high
    assert low <= sweep.log_uniform(low, high).at(u) <= high * (1 + 1e-12)


def test_quantiles_by_hand():
    assert sweep.uniform(-1.0, 3.0).at(0.25) == 0.0
    assert sweep.log_uniform(1e-6, 1e-2).at(0.75) == pytest.approx(1e-3)
    draws = [sweep.integer(2, 4).at(u) for u in np.linspace(0, 1, 300, endpoint=False)]
    assert [draws.count(n) for n in (2, 3, 4)] == [100, 100, 100]
    picks = [sweep.choice("a", "b").at(u) for u in (0.0, 0.49, 0.5, 0.99)]
    assert picks == ["a", "a", "b", "b"]


def test_grids_by_hand():
    assert sweep.log_grid(1e-4, 1.0, 5).points == pytest.approx((1e-4, 1e-3, 1e-2, 0.1, 1.0))
    assert sweep.grid(0.0, 0.6, 4).points == (0.0, 0.2, 0.4, 0.6)
    assert sweep.seeds(3).points == (0, 1, 2)
    assert sweep.log_grid(0.5, 2.0, 1).points == (0.5,)


SPACE = {
    "lr": sweep.log_uniform(1e-5, 1.0),
    "dropout": sweep.uniform(0.0, 0.5),
    "warmup": sweep.integer(0, 20),
    "depth": sweep.integer(1, 3, static=True),
    "width": sweep.choice(32, 64, static=True),
    "momentum": sweep.choice(0.5, 0.9),
    "optimizer": sweep.choice("sgd", "adam"),
    "kernel": sweep.choice((3, 3), (5, 5)),
    "l2": sweep.log_grid(1e-6, 1e-2, 3),
    "b1": 0.8,
    "name": "cnn",
    "layers": 4,
    "decay": sweep.when("optimizer", "adam", sweep.log_uniform(1e-6, 1e-2)),
    "filters": sweep.when("kernel", ((3, 3),), sweep.choice(8, 16, static=True)),
    "seed": sweep.seeds(4),
}


def test_json_round_trip():
    written = json.loads(json.dumps(sweep.to_json(SPACE)))
    back = sweep.from_json(written)
    assert sweep.to_json(back) == written
    for name, dimension in parse_space(SPACE).items():
        assert back[name].kind == dimension.kind
        assert back[name].static == dimension.static
        assert back[name].points == dimension.points
        assert back[name].when == dimension.when
        assert [back[name].at(u) for u in (0, 0.3, 0.9)] == [dimension.at(u) for u in (0, 0.3, 0.9)]


def test_toml(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(
        "lr = {log_uniform = [1e-4, 1.0]}\n"
        'optimizer = {choice = ["sgd", "adam"]}\n'
        "width = {choice = {options = [32, 64], static = true}}\n"
        "b1 = 0.8\nseed = {seeds = 4}\n"
        'mu = {uniform = [0.5, 0.9], when = {optimizer = "sgd", width = [32, 64]}}\n'
    )
    space = sweep.from_toml(str(path))
    assert space["lr"].at(0.5) == pytest.approx(0.01)
    assert space["optimizer"].points == ("sgd", "adam")
    assert space["width"].static and space["width"].points == (32, 64)
    assert space["b1"].points == (0.8,) and not space["b1"].static
    assert seed_axis(space) == "seed"
    assert space["mu"].when == (("optimizer", ("sgd",)), ("width", (32, 64)))


@pytest.mark.parametrize(
    "text,message",
    [
        ("lr = {log_unifrom = [1, 2]}", r"`lr` must be a value or one of uniform, log_uniform"),
        ("lr = {log_uniform = [2.0, 1.0]}", r"`lr`: `log_uniform` needs low < high"),
        ("lr = {log_uniform = [1.0]}", r"`lr`: .*missing"),
        ("lr = {uniform = [0, 1], seeds = 3}", r"`lr` must be a value or one of"),
        ("lr = ", r"space\.toml: "),
        ("lr = {uniform = [0, 1], when = 3}", r"`when` of `lr` must name .*, got 3"),
        ("lr = {uniform = [0, 1], when = {a = 1}}", r"`a`, which is not in the space: lr"),
        ("", "space is empty"),
    ],
)
def test_what_toml_gets_wrong(tmp_path, text, message):
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        sweep.from_toml(str(path))


def test_static_and_traced():
    space = parse_space(SPACE)
    static = {name for name, d in space.items() if d.static}
    assert static == {"depth", "width", "optimizer", "kernel", "name", "layers", "filters"}
    config = {name: d.at(0.0) for name, d in space.items()}
    del config["decay"]  # as a configuration of sgd has none
    parts, numbers = split_static(space, config)
    assert dict(parts) | numbers == config and {name for name, _ in parts} == static
    assert "decay" not in numbers
    scalars = as_scalars(numbers)
    assert scalars["lr"].dtype == np.float32 and scalars["warmup"].dtype == np.int32
    assert scalars["seed"].dtype == np.int32
    hash(parts)


def test_mixed_numbers_become_floats():
    assert sweep.choice(1, 0.5).points == (1.0, 0.5)
    assert all(isinstance(p, float) for p in sweep.choice(1, 0.5).points)
    assert all(isinstance(p, int) for p in sweep.choice(1, 2).points)
    assert sweep.choice(True, False).static


def test_finite():
    assert finite(parse_space({"a": sweep.integer(1, 3), "b": 2}))
    assert not finite(parse_space({"a": sweep.uniform(0, 1)}))


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: sweep.choice(), "at least one option"),
        (lambda: sweep.choice("a", static=False), "Only numbers can be traced"),
        (lambda: sweep.uniform(1.0, 1.0), "low < high, got low=1.0, high=1.0"),
        (lambda: sweep.uniform(float("nan"), 1.0), "`low` of `uniform` must be in"),
        (lambda: sweep.log_uniform(1e-3, float("inf")), "`high` of `log_uniform` must be in"),
        (lambda: sweep.log_grid(1e-3, 1.0, 0), "at least 1, got 0"),
        (lambda: sweep.seeds(0), "at least 1, got 0"),
        (lambda: parse_space({"a": sweep.seeds(2), "b": sweep.seeds(3)}), "one axis of seeds"),
        (lambda: sweep.when("a", (), 1.0), r"`values` of when\('a', ...\) must be at least one"),
        (lambda: sweep.when("a", "x", sweep.seeds(2)), "An axis of seeds cannot depend on `a`"),
        (
            lambda: parse_space({"a": sweep.choice(0.1, 0.2), "b": sweep.when("a", 0.1, 1.0)}),
            "`b` depends on `a`, so `a` must be static, .* got choice",
        ),
        (
            lambda: parse_space({"a": sweep.choice("x", "y"), "b": sweep.when("a", "z", 1.0)}),
            "`b` exists for `a` 'z', but `a` is one of 'x', 'y'",
        ),
        (
            lambda: parse_space(
                {
                    "a": sweep.when("b", "x", sweep.choice("x", "y")),
                    "b": sweep.when("a", "x", sweep.choice("x", "y")),
                    "c": 1,
                }
            ),
            "The conditions of a, b depend on each other in a circle",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@given(st.data())
def test_a_configuration_holds_what_its_conditions_say(data):
    """Random forests of conditions, in any order, against a definition by recursion."""
    count = data.draw(st.integers(2, 6))
    parents = [data.draw(st.integers(-1, i - 1)) for i in range(count)]
    shuffled = data.draw(st.permutations(range(count)))
    space = {}
    for i in shuffled:
        dimension = sweep.choice("x", "y", "z")
        if parents[i] >= 0:
            dimension = sweep.when(str(parents[i]), ("x", "z")[: 1 + i % 2], dimension)
        space[str(i)] = dimension
    values = {str(i): data.draw(st.sampled_from("xyz")) for i in range(count)}

    def there(i):
        above = parents[i]
        return above < 0 or (there(above) and values[str(above)] in ("x", "z")[: 1 + i % 2])

    expected = {str(i): values[str(i)] for i in shuffled if there(i)}
    config = configuration(parse_space(space), values.__getitem__)
    assert config == expected and list(config) == list(expected)
    every = [tuple(c.items()) for c in combinations(parse_space(space))]
    assert tuple(expected.items()) in every and len(set(every)) == len(every)


def test_a_file_adds_to_a_space(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text('mu = {uniform = [0.5, 0.9], when = {opt = "b"}}\nlr = 0.1\n')
    base = {"opt": sweep.choice("a", "b"), "lr": sweep.log_uniform(1e-3, 1.0)}
    space = sweep.from_toml(str(path), base)
    assert list(space) == ["opt", "lr", "mu"] and space["lr"].points == (0.1,)
    with pytest.raises(ValueError, match="`opt`, which is not in the space: mu, lr"):
        sweep.from_toml(str(path))


@pytest.mark.parametrize("name", ["steps", "trial", "status", "\ud800"])
def test_a_name_that_no_table_holds_is_refused(name):
    with pytest.raises(ValueError, match="hyperparameter"):
        sweep.parse_space({name: 0.1})


def test_static_parts_as_labels():
    """In quotes is what could be read otherwise: with spaces, as a number, as None."""
    words = ["adam", "a-b.c+d_e", "a b", "", "=", "64", "1e3", "nan", "None", "True", "False", "No"]
    quoted = {"a b", "", "=", "64", "1e3", "nan", "None", "True", "False"}
    for word in words:
        expected = repr(word) if word in quoted else word
        assert names([(word, word)]) == f"{expected}={expected}"
    assert names([("a", None), ("b", 1.0), ("c", (1, "x"))]) == "a=None b=1.0 c=(1, 'x')"


def test_ends_are_the_given_ones_and_apart_to_a_lane():
    for tenths in range(2, 40):
        low, high = tenths / 30, tenths / 7
        made = sweep.log_uniform(low, high)
        assert (made.at(0.0), made.at(1.0)) == (low, high)
    # Integers of a lane are int32, which tells apart what float32 does not.
    assert sweep.integer(2**24, 2**24 + 1).at(0.99) == 2**24 + 1
    with pytest.raises(ValueError, match="the same number in float32"):
        sweep.uniform(1.0, 1.0 + 1e-9)


def test_seeds_and_folds_share_a_program():
    assert not sweep.seeds(2).static and not sweep.folds(2).static
