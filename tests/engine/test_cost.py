"""What reports cost, how long segments are, and what a run has done so far: by hand."""

from __future__ import annotations

import math

import pytest
from tests.engine.by_hand import order, segment

from jdl.engine.cost import Tally, measured, report_seconds, reports_ahead, short, worthwhile
from jdl.engine.events import DIVERGED, DONE, STOPPED, Ended


def test_the_estimate_of_a_report_is_overhead_and_traffic():
    # Ten steps of 5 us, and ten times 3 MB at 10 GB a second.
    assert report_seconds(10, 3_000_000) == pytest.approx(10 * (5e-6 + 3e-4), rel=1e-12, abs=0)
    assert report_seconds(7, 0) == pytest.approx(35e-6, rel=1e-12, abs=0)


def test_another_program_is_worth_twice_its_compilation():
    assert not worthwhile(6.0)
    assert worthwhile(6.01)


def test_the_host_shows_beside_segments_under_a_second():
    assert short(0.99) and not short(1.0)


@pytest.mark.parametrize(
    ("ordered", "seconds", "estimated", "lanes", "reports"),
    [
        (True, 0.001, 0.02, 3, 8),  # half a second by the estimate: 8.3 reports of three lanes
        (True, None, 0.02, 4, 6),
        (True, None, 0.3, 4, 1),
        (False, None, 1e-6, 1, 1),
        (False, 0.03, 1e-6, 1, 3),  # a tenth of a second as measured: 3.3 reports
        (False, 0.013, 9.0, 9, 8),
        (False, 2.0, 1e-6, 1, 1),
    ],
)
def test_a_segment_is_as_long_as_its_reports_allow(ordered, seconds, estimated, lanes, reports):
    assert reports_ahead(ordered, seconds, estimated, lanes) == reports


@pytest.mark.parametrize(
    ("before", "seconds", "reports", "each"),
    [
        (None, 0.3, 2, 0.15),
        (None, 0.11, 100, 0.0011),
        (None, 0.1, 100, 0.0125),  # the first wait may be too short to go by
        (None, 0.05, 2, 0.025),
        (0.2, 0.05, 100, 0.0005),
        (0.2, 1e-5, 4, 0.25e-4),  # never less than a tenth of a millisecond a segment
    ],
)
def test_seconds_of_a_report_as_measured(before, seconds, reports, each):
    assert measured(before, seconds, reports) == pytest.approx(each, rel=1e-12, abs=0)


def test_a_segment_counts_its_reports_its_steps_and_its_best():
    # Five lanes make three reports of ten steps; one trial fails in its second.
    of = order(3, {0: (4, 0), 2: (5, 1), 3: (6, 0)})
    brought = segment(of, [0.1, 0.7, 0.2], [0.4, -math.inf], [], failed=[-1, 25, 3])
    tally = Tally(best=0.5).with_segment(brought, 5, 10, True)
    assert tally == Tally(reports=5, lane_steps=150, queued_steps=150, busy_steps=50, best=0.7)
    again = tally.with_segment(segment(of, [0.1], [], [0.2]), 4, 10, False)
    assert again == Tally(reports=7, lane_steps=270, queued_steps=150, busy_steps=50, best=0.7)
    assert again.busy == 50 / 150
    assert Tally(lane_steps=9).busy == 1.0


def test_a_tally_before_any_report_has_no_best():
    assert Tally() == (0, 0, 0, 0, 0, 0, 0, -math.inf)


def test_trials_that_end_early_count_the_reports_they_will_never_make():
    ended = [
        Ended(1, DONE, 60, 0.5),  # all six
        Ended(2, STOPPED, 20, 0.5),  # four are left
        Ended(3, STOPPED, 0, 0.5),  # six
        Ended(4, DIVERGED, 21, 0.5),  # in its third: three
        Ended(5, DONE, 50, 0.5),  # one
        Ended(6, STOPPED, 10, 0.5),  # five
        Ended(7, DONE, 70, 0.5),  # more than there are: none
    ]
    tally = Tally(done=10, diverged=20, stopped=30, reports=7).with_ended(ended, 6, 10)
    assert tally == Tally(done=13, diverged=21, stopped=33, reports=7 + 19)
    assert tally.ended == 67


def test_a_tally_afresh_has_the_trials_that_ended_alone():
    full = Tally(3, 4, 5, 6, 7, 8, 9, 0.5)
    assert full.afresh == Tally(3, 4, 5)
