"""A group's estimate of a report comes from its plan."""

from __future__ import annotations

import pytest
from tests.engine.pretended import EVERY, group


def test_a_report_of_one_lane_is_estimated_from_its_bytes():
    # Steps of 5 us, each of which moves 2 MB at 10 GB a second.
    one = group("a", 3, 2, 2_000_000)
    assert one.report_seconds == pytest.approx(EVERY * (5e-6 + 2e-4), rel=1e-12)
    assert group("a", 1, 1, 2_000_000).report_seconds == one.report_seconds
