"""Labels of groups: two groups of one space never share one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jdl.sweep.points import group_label

values = st.one_of(
    st.text("ab =1'\"\\", max_size=4), st.integers(-2, 2), st.booleans(), st.none(), st.just(1.0)
)


@given(st.tuples(values, values), st.tuples(values, values))
def test_two_groups_have_two_labels(one, other):
    labels = [group_label(dict(zip(("width", "a b"), group))) for group in (one, other)]
    assert (labels[0] == labels[1]) == (repr(one) == repr(other))
