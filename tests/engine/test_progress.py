"""Progress: few plain lines off a terminal, and what a line says."""

from __future__ import annotations

import pytest

from jdl.engine import progress
from jdl.engine.progress import Progress, Status


def status(fraction, done=0, **other):
    fields = {"trials": 100, "running": 8, "diverged": 0, "stopped": 0, "best": "", **other}
    return Status(done=done, fraction=fraction, **fields)


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_at_most_a_line_every_two_seconds_and_ten_in_all(clock, capsys):
    shown = Progress()
    for i in range(10_001):
        clock[0] = i / 100
        shown.update(status(i / 10_000))
    lines = capsys.readouterr().err.splitlines()
    assert 9 <= len(lines) <= 10


def test_a_quick_run_prints_nothing(clock, capsys):
    shown = Progress()
    clock[0] = 1.9
    shown.update(status(1.0, done=100))
    assert capsys.readouterr().err == ""


def test_what_the_line_says(clock, capsys):
    shown = Progress()
    clock[0] = 10.0
    shown.update(status(0.4, done=30, diverged=6, stopped=4, best="0.97", before=20))
    (line,) = capsys.readouterr().err.splitlines()
    for part in (
        "40/100 trials",
        "8 running",
        "6 diverged",
        "4 stopped",
        "best report 0.97",
        "2.0 trials/s",
        "15s left",
    ):
        assert part in line
    assert len(line) < 120


def test_brackets_are_printed(clock, capsys):
    Progress().say("in [0, 1) and [red]")
    assert capsys.readouterr().err == "in [0, 1) and [red]\n"


def test_silence(capsys):
    quiet = Progress(shown=False)
    quiet.say("nothing")
    quiet.update(status(0.5))
    quiet.close()
    assert capsys.readouterr().err == ""
