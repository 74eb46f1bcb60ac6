"""What a search gives: nothing, unless something is said."""

from __future__ import annotations

from jdl.engine.supply import Given


def test_a_search_that_gave_nothing():
    assert Given() == ((), (), ()) and Given._fields == ("trials", "configs", "groups")
