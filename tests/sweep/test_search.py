"""Search: grids, random draws that stay when others are added, seeds in pairs."""

from __future__ import annotations

import itertools

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
    with pytest.raises(ValueError, match="`search` must be 'grid', 'random' or a Search"):
        make_search("tpe", finite, 5, 0)
