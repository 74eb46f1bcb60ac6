"""Whether two folders hold the same table."""

from __future__ import annotations

import numpy as np

from jdl import sweep


def assert_same_table(one, two):
    """Every trial, curve and kept state of two runs is the same, to the bit."""
    one, two = sweep.read(one), sweep.read(two)
    assert [t[:4] for t in one.trials] == [t[:4] for t in two.trials]
    assert one.curve_names == two.curve_names
    for name in one.curve_names:
        np.testing.assert_array_equal(one.curves(name), two.curves(name))
    for a, b in zip(one.trials, two.trials):
        assert a.config == b.config
        np.testing.assert_equal(a.metrics, b.metrics)
        np.testing.assert_equal(a.state, b.state)
