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


def test_the_whole_line():
    line = progress._line(status(0.25, done=20, stopped=5, best="0.5"), 50.0)
    assert line == (
        "━━╌╌╌╌╌╌╌╌ 25/100 trials · 8 running · 5 stopped · best report 0.5 · 0.5 trials/s · "
        "2m30s left"
    )
    assert progress._line(status(0.0), 50.0) == "╌╌╌╌╌╌╌╌╌╌ 0/100 trials · 8 running"
    # What had ended before has no part in the rate of this process.
    same = progress._line(status(1.0, done=20, diverged=1, before=21), 50.0)
    assert same == "━━━━━━━━━━ 21/100 trials · 8 running · 1 diverged · 0s left"
    assert "trials/s" not in progress._line(status(0.5, done=20), 0.0)
    assert "40.0 trials/s" in progress._line(status(0.5, done=20), 0.5)
    assert status(0.5).before == 0
    assert "0.2 trials/s" in progress._line(status(0.5, done=22, before=20), 10.0)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0s"), (59.4, "59s"), (59.6, "1m00s"), (61, "1m01s"), (3599.4, "59m59s"),
        (3600, "1h00m"), (3660, "1h01m"), (86399, "23h59m"),
    ],
)  # fmt: skip
def test_seconds_as_a_person_says_them(seconds, said):
    assert progress._duration(seconds) == said


def test_lines_are_a_tenth_and_two_seconds_apart(clock, capsys):
    clock[0] = 100.0
    shown = Progress()

    def printed(now, fraction):
        clock[0] = now
        shown.update(status(fraction))
        return capsys.readouterr().err != ""

    assert not printed(101.99, 0.5) and not printed(109.0, 0.09)
    assert printed(102.0, 0.1)
    assert not printed(120.0, 0.195) and not printed(103.9, 0.5)
    assert printed(104.0, 0.2)
    assert not printed(105.9, 1.0) and printed(106.0, 1.0)


def test_on_a_terminal_the_line_lives(clock, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress.Console, "is_terminal", property(lambda self: True))
    monkeypatch.setattr(progress, "Live", Lived)
    shown = Progress()
    clock[0] = 0.5
    shown.update(status(0.01))
    (live,) = Lived.made
    shown.close()
    assert live.calls == ["start", "╌╌╌╌╌╌╌╌╌╌ 0/100 trials · 8 running · 50s left", "stop"]
    assert live.options["transient"] is True and live.options["refresh_per_second"] == 8
    assert live.text.no_wrap is True and live.text.overflow == "ellipsis"
    assert capsys.readouterr().err == ""
    # Nothing lives where nothing is shown.
    quiet = Progress(shown=False)
    quiet.update(status(0.5))
    quiet.close()
    assert Lived.made == [live]


class Lived:
    """In place of a live line: what is called."""

    made: list = []  # noqa: RUF012

    def __init__(self, **options):
        self.options, self.calls, self.text = options, [], None
        self.made.append(self)

    def start(self):
        self.calls.append("start")

    def update(self, text):
        self.calls.append(text.plain)
        self.text = text

    def stop(self):
        self.calls.append("stop")


def test_a_long_line_is_not_broken_or_coloured(clock, capsys):
    shown = Progress()
    shown._console = progress.Console(stderr=True, force_terminal=True, width=80)
    shown.say("3 words " * 99)
    assert capsys.readouterr().err == "3 words " * 99 + "\n"
