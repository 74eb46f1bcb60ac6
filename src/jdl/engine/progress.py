"""The progress of a run, as a live line on a terminal and occasional plain lines elsewhere."""

from __future__ import annotations

import time
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.text import Text

LINES = 10  # plain lines of a whole run, at most one every two seconds


class Status(NamedTuple):
    """The progress of a run at one moment."""

    trials: int
    done: int
    running: int
    diverged: int
    stopped: int
    fraction: float  # of all steps
    best: str
    before: int = 0  # trials that had ended when this process started


class Progress:
    """Shows a run's `Status` while it changes."""

    def __init__(self, shown: bool = True):
        self._console = Console(stderr=True)
        self._start = time.monotonic()
        self._shown = shown
        self._next = (0.1, 2.0)  # fraction and seconds of the next plain line
        self._live: Live | None = None
        if shown and self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=8, transient=True)
            self._live.start()

    def say(self, text: str) -> None:
        """Prints a separate line."""
        if self._shown:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def update(self, status: Status) -> None:
        """Updates the live line, or prints a plain one when it is due."""
        if not self._shown:
            return
        seconds = time.monotonic() - self._start
        if self._live is not None:
            self._live.update(Text(_line(status, seconds), no_wrap=True, overflow="ellipsis"))
        elif status.fraction >= self._next[0] and seconds >= self._next[1]:
            self.say(_line(status, seconds))
            self._next = status.fraction + 1 / LINES, seconds + 2.0

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._live is not None:
            self._live.stop()


def _line(status: Status, seconds: float) -> str:
    bar = int(10 * status.fraction)
    ended = status.done + status.diverged + status.stopped
    parts = [
        f"{'━' * bar}{'╌' * (10 - bar)} {ended}/{status.trials} trials",
        f"{status.running} running",
    ]
    if status.diverged:
        parts.append(f"{status.diverged} diverged")
    if status.stopped:
        parts.append(f"{status.stopped} stopped")
    if status.best:
        parts.append(f"best report {status.best}")
    if seconds > 0 and ended > status.before:
        parts.append(f"{(ended - status.before) / seconds:.1f} trials/s")
    if status.fraction > 0:
        parts.append(f"{_duration(seconds / status.fraction - seconds)} left")
    return " · ".join(parts)


def _duration(seconds: float) -> str:
    """Seconds in a readable form.

    >>> _duration(7.2), _duration(75), _duration(7500)
    ('7s', '1m15s', '2h05m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
