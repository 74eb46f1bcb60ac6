"""Guards against what is not finite."""

import jax
import jax.numpy as jnp
import pytest
from tests.optim.loops import check_named, close, draw, updates_of

from jdl import optim, tree


def test_zero_nans_zeroes_and_reports_them():
    g = {"a": jnp.array([1.0, jnp.nan, jnp.inf]), "b": jnp.array([2.0])}
    updates, state = optim.zero_nans().update(g, optim.zero_nans().init(g))
    assert updates["a"].tolist() == [1.0, 0.0, float("inf")]
    assert {k: bool(v) for k, v in state.found_nan.items()} == {"a": True, "b": False}
    updates, state = optim.zero_nans(infinite=True).update(g, state)
    assert updates["a"].tolist() == [1.0, 0.0, 0.0]
    clean = {"a": jnp.array([1.0, 2.0, -jnp.inf]), "b": jnp.array([2.0])}
    _, state = optim.zero_nans().update(clean, state)
    assert not any(bool(v) for v in state.found_nan.values())
    assert not any(bool(v) for v in optim.zero_nans().init(g).found_nan.values())


def test_a_step_that_is_not_finite_changes_nothing(x64):
    good, bad = draw(1)[0], {"kernel": jnp.full((3, 2), jnp.nan), "bias": jnp.ones(2)}
    inner = optim.adam(0.1, 0.6, 0.7)
    skipped, w, state = updates_of(optim.apply_if_finite(inner, 3), [good, bad, bad, good])
    expected, w_expected, inner_state = updates_of(inner, [good, good])
    close([skipped[0], skipped[3]], expected)
    close(w, w_expected)
    close(state.inner, inner_state)
    assert all(float(jnp.max(jnp.abs(x))) == 0 for u in skipped[1:3] for x in u.values())
    counts = (int(state.consecutive), int(state.total), bool(state.last_finite))
    assert counts == (0, 2, True)
    first = optim.apply_if_finite(inner, 3).init(w)
    assert (int(first.consecutive), int(first.total), bool(first.last_finite)) == (0, 0, True)


def test_too_many_in_a_row_pass():
    bad = {"kernel": jnp.full((3, 2), jnp.inf), "bias": jnp.ones(2)}
    for limit in (0, 2):
        updates, _, state = updates_of(optim.apply_if_finite(optim.sgd(0.1), limit), [bad] * 4)
        passed = [not bool(tree.all_finite(u)) for u in updates]
        assert passed == [i >= limit for i in range(4)]
        assert int(state.consecutive) == int(state.total) == 4 and not bool(state.last_finite)


def test_a_traced_limit_of_errors():
    bad = jnp.array([jnp.nan])

    def passed(limit):
        optimizer = optim.apply_if_finite(optim.sgd(0.1), limit)
        _, state = optimizer.update(bad, optimizer.init(bad))
        return jnp.isnan(optimizer.update(bad, state)[0])[0]

    assert jax.vmap(passed)(jnp.array([0, 1, 2])).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optim.apply_if_finite(optim.sgd(1), -1), r"`max_consecutive_errors` .*\[0, inf\]"),
    ],
)
def test_numbers_out_of_range_are_named(make, match):
    check_named(make, match)
