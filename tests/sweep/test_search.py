"""Search: grids, random draws that stay when others are added, seeds in pairs."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest
from scipy import stats

from jdl import sweep
from jdl.sweep.search import make_search
from jdl.sweep.space import parse_space

SPACE = parse_space(
    {"lr": sweep.log_uniform(1e-4, 1.0), "opt": sweep.choice("a", "b"), "seed": sweep.seeds(3)}
)


def test_grid_is_the_product():
    space = parse_space({"a": sweep.integer(1, 2), "b": sweep.choice("x", "y", "z")})
    search = sweep.grid_search(space)
    first, rest, none = search.ask(4), search.ask(100), search.ask(1)
    assert [tuple(c.values()) for c in first + rest] == list(itertools.product((1, 2), "xyz"))
    assert none == []


def test_every_configuration_meets_every_seed():
    configs = sweep.random_search(SPACE, 12).ask(100)
    assert len(configs) == 12
    for at in range(0, 12, 3):
        group = configs[at : at + 3]
        assert [c["seed"] for c in group] == [0, 1, 2]
        assert len({(c["lr"], c["opt"]) for c in group}) == 1
    assert len({c["lr"] for c in configs}) == 4


def test_more_trials_and_more_dimensions_leave_earlier_draws():
    few = sweep.random_search(SPACE, 6).ask(6)
    many = sweep.random_search(SPACE, 60).ask(60)
    assert many[:6] == few
    wider = parse_space({"first": sweep.uniform(0, 1), **SPACE})
    assert [c["lr"] for c in sweep.random_search(wider, 6).ask(6)] == [c["lr"] for c in few]


def test_batches_do_not_change_what_is_asked():
    whole = sweep.random_search(SPACE, 30).ask(30)
    search = sweep.random_search(SPACE, 30)
    assert search.ask(7) + search.ask(1) + search.ask(50) == whole


def test_seeds_of_the_search_differ():
    one, two = (sweep.random_search(SPACE, 3, seed).ask(3) for seed in (0, 1))
    assert one[0]["lr"] != two[0]["lr"]


def test_draws_have_their_distribution():
    space = parse_space({"lr": sweep.log_uniform(1e-4, 1.0), "opt": sweep.choice("a", "b", "c")})
    configs = sweep.random_search(space, 3000).ask(3000)
    logs = np.log10([c["lr"] for c in configs])
    assert stats.kstest(logs, stats.uniform(-4, 4).cdf).pvalue > 1e-3
    counts = np.array([sum(c["opt"] == o for c in configs) for o in "abc"])
    assert stats.chisquare(counts).pvalue > 1e-3
    # Two hyperparameters have streams of their own: no correlation.
    index = np.array(["abc".index(c["opt"]) for c in configs])
    assert abs(np.corrcoef(logs, index)[0, 1]) < 4 / np.sqrt(3000)


def test_which_search():
    finite = parse_space({"a": sweep.integer(1, 2)})
    assert make_search(None, finite, None, 0).name == "grid"
    assert make_search(None, finite, 5, 0).name == "random"
    with pytest.raises(ValueError, match="leave `trials` out"):
        make_search("grid", finite, 5, 0)
    with pytest.raises(
        ValueError, match="`search` must be 'grid', 'random', 'sobol' or a Search, got search='tpe'"
    ):
        make_search("tpe", finite, 5, 0)


CONDITIONAL = {
    # The child comes before its parent, and a grandchild hangs on the child.
    "mu": sweep.when("opt", ("momentum", "nesterov"), sweep.choice(0.5, 0.9)),
    "warm": sweep.when("depth", 2, sweep.uniform(0.0, 1.0)),
    "opt": sweep.choice("sgd", "momentum", "nesterov"),
    "depth": sweep.when("opt", "nesterov", sweep.integer(1, 2, static=True)),
    "lr": sweep.log_uniform(1e-3, 1.0),
    "seed": sweep.seeds(2),
}


def what_exists(config):
    """The names that CONDITIONAL asks for, by hand."""
    names = {"opt", "lr", "seed"}
    names |= {"mu"} if config["opt"] != "sgd" else set()
    names |= {"depth"} if config["opt"] == "nesterov" else set()
    names |= {"warm"} if config.get("depth") == 2 else set()
    return [name for name in CONDITIONAL if name in names]


@pytest.mark.parametrize("make", [sweep.random_search, sweep.sobol_search])
def test_what_does_not_exist_has_no_entry(make):
    configs = make(CONDITIONAL, 200).ask(200)
    assert all(list(config) == what_exists(config) for config in configs)
    assert len({tuple(config) for config in configs}) == 4
    # A grid meets each combination once: those that do not exist are not repeated.
    small = {n: d for n, d in CONDITIONAL.items() if n not in ("lr", "warm", "seed")}
    found = [tuple(c.items()) for c in sweep.grid_search(small).ask(100)]
    assert len(found) == len(set(found)) == 1 + 2 + 2 * 2


def test_conditions_leave_the_draws_of_others():
    plain = {n: d._replace(when=()) for n, d in CONDITIONAL.items()}
    ours, theirs = (sweep.random_search(s, 50).ask(50) for s in (CONDITIONAL, plain))
    assert [{n: c[n] for n in o} for o, c in zip(ours, theirs)] == ours


def test_constraints_reject_and_count():
    space = {"a": sweep.uniform(0.0, 1.0), "b": sweep.uniform(0.0, 1.0), "seed": sweep.seeds(2)}
    seen = []

    def ordered(config):
        seen.append(set(config))
        return config["a"] < config["b"]

    search = sweep.random_search(space, 400, constraint=ordered)
    configs = search.ask(400)
    assert all(c["a"] < c["b"] for c in configs) and len(configs) == 400
    assert seen and all(names == {"a", "b"} for names in seen)
    # As many are rejected as accepted, to four standard deviations of a geometric count.
    assert abs(search.facts()["rejected"] - 200) < 4 * np.sqrt(2 * 200)
    # What is left keeps its seeds, and is what an unconstrained search would have drawn.
    free = [c for c in sweep.random_search(space, 2000).ask(2000) if c["a"] < c["b"]]
    assert configs == free[:400]


def test_a_constraint_is_part_of_the_name():
    space = {"a": sweep.uniform(0.0, 1.0)}
    low, high, again = (
        sweep.random_search(space, 1, constraint=c).name
        for c in (lambda c: c["a"] < 0.5, lambda c: c["a"] > 0.5, lambda c: 2 * c["a"] < 1)
    )
    assert low != high and low == again and low.startswith("random under a constraint")
    assert sweep.random_search(space, 1).facts() == {}


def test_a_constraint_that_nothing_satisfies():
    space = {"a": sweep.integer(1, 3)}
    with pytest.raises(ValueError, match=r"10,000 draws in a row .* the last {'a': \d}"):
        sweep.random_search(space, 1, constraint=lambda c: False).ask(1)
    with pytest.raises(ValueError, match="No combination of the grid satisfies"):
        sweep.grid_search(space, lambda c: False)


@pytest.mark.parametrize("make", [sweep.random_search, sweep.sobol_search])
def test_a_constraint_that_fails_says_on_what(make):
    with pytest.raises(KeyError, match="decay") as error:
        make({"a": sweep.uniform(0, 1)}, 3, constraint=lambda c: c["decay"] > 0)
    assert any("The constraint was called with {'a': " in note for note in error.value.__notes__)


@pytest.mark.parametrize("make", [sweep.random_search, sweep.sobol_search])
@pytest.mark.parametrize("trials", [0, -3, True])
def test_trials_are_counted(make, trials):
    with pytest.raises(
        (TypeError, ValueError), match="`trials` must be an integer of at least 1, got trials="
    ):
        make({"a": sweep.uniform(0, 1)}, trials)


def test_sobol_fills_the_space_more_evenly_than_chance():
    space = {"x": sweep.uniform(0.0, 1.0), "n": sweep.integer(0, 3), "y": sweep.log_uniform(1, 10)}
    configs = sweep.sobol_search(space, 256, seed=3).ask(256)
    points = np.array([[c["x"], np.log10(c["y"])] for c in configs])
    drawn = np.random.default_rng(3).random((256, 2))
    even = stats.qmc.discrepancy(points)
    assert even < 0.1 * stats.qmc.discrepancy(drawn)
    # Each of 256 columns, and each of 16 x 16 boxes, holds exactly one of 256 points.
    assert sorted((points[:, 0] * 256).astype(int)) == list(range(256))
    assert [sum(c["n"] == n for c in configs) for n in range(4)] == [64] * 4
    other = sweep.sobol_search(space, 256, seed=4).ask(256)
    assert other[0] != configs[0]
    search = sweep.sobol_search(space, 256, seed=3)
    assert search.ask(7) + search.ask(200) + search.ask(100) == configs


def test_sobol_repeats_its_points_with_every_seed():
    configs = sweep.sobol_search(SPACE, 9).ask(9)
    assert [c["seed"] for c in configs] == [0, 1, 2] * 3
    assert len({c["lr"] for c in configs}) == 3


def test_each_hyperparameter_has_the_stream_of_its_name():
    for seed in (0, 5):
        streams = {n: np.random.default_rng([seed, zlib.crc32(n.encode())]) for n in ("lr", "opt")}
        quantiles = [{name: stream.random() for name, stream in streams.items()} for _ in range(3)]
        configs = sweep.random_search(SPACE, 9, seed).ask(9)[::3]
        expected = [{n: SPACE[n].at(q[n]) for n in q} | {"seed": 0} for q in quantiles]
        assert configs == expected
    assert sweep.random_search(SPACE, 9).ask(9) == sweep.random_search(SPACE, 9, 0).ask(9)


def test_the_points_of_sobol_are_those_of_scipy():
    """A coordinate for each number of a range first, then one for each choice; 64 at a time."""
    for seed in (0, 3):
        sequence = stats.qmc.Sobol(2, scramble=True, rng=np.random.default_rng(seed))
        points = np.concatenate([sequence.random(64), sequence.random(64)])
        space = {"opt": sweep.choice("a", "b"), "one": 7.0, "lr": sweep.uniform(2.0, 5.0)}
        configs = sweep.sobol_search(space, 70, seed).ask(70)
        assert [c["lr"] for c in configs] == pytest.approx(2.0 + 3.0 * points[:70, 0], rel=1e-12)
        assert [c["opt"] for c in configs] == ["ab"[int(2 * u)] for u in points[:70, 1]]
        assert {c["one"] for c in configs} == {7.0}
    assert sweep.sobol_search(space, 9).ask(9) == sweep.sobol_search(space, 9, 0).ask(9)
    (only,) = sweep.sobol_search({"one": 7.0}, 1).ask(3)
    assert only == {"one": 7.0}


def test_a_constraint_is_named_by_its_verdicts_on_256_draws():
    space = parse_space({"a": sweep.uniform(0.0, 1.0), "seed": sweep.seeds(2)})
    random, seen = np.random.default_rng(0), []
    search = sweep.random_search(space, 1, constraint=lambda c: seen.append(c) or c["a"] < 0.3)
    draws = [{n: space[n].at(random.random()) for n in space} for _ in range(256)]
    assert seen == [{"a": draw["a"]} for draw in draws]
    verdicts = bytes(draw["a"] < 0.3 for draw in draws)
    assert search.name == f"random under a constraint ({zlib.crc32(verdicts):08x})"
    assert (
        sweep.sobol_search(space, 2).name == "sobol"
        and sweep.grid_search({"a": sweep.integer(1, 2)}).name == "grid"
    )


def test_what_a_search_that_does_not_learn_is_told_changes_nothing():
    search = sweep.random_search(SPACE, 6)
    first = search.ask(3)
    search.tell(first, [1.0, 2.0, 3.0])
    assert first + search.ask(3) == sweep.random_search(SPACE, 6).ask(6)
    assert not search.adaptive and search.facts() == {}


def test_rejected_draws_in_a_row_are_counted_anew_after_each_that_is_accepted(monkeypatch):
    monkeypatch.setattr("jdl.sweep.search.MOST_REJECTED", 3)
    verdicts = iter([True] * 256 + [False, False, True, False, False, True, False, False, False])
    search = sweep.random_search({"a": sweep.uniform(0, 1)}, 9, constraint=lambda c: next(verdicts))
    assert len(search.ask(2)) == 2 and search.facts() == {"rejected": 4}
    with pytest.raises(ValueError, match="3 draws in a row do not satisfy the constraint"):
        search.ask(1)


def test_a_grid_leaves_out_what_its_constraint_rejects():
    space = {"low": sweep.integer(1, 3), "seed": sweep.seeds(2), "high": sweep.integer(1, 3)}
    search = sweep.grid_search(space, lambda config: config["low"] < config["high"])
    found = [tuple(config.values()) for config in search.ask(99)]
    assert found == [(1, 0, 2), (1, 0, 3), (1, 1, 2), (1, 1, 3), (2, 0, 3), (2, 1, 3)]
    assert search.facts() == {"rejected": 12}
