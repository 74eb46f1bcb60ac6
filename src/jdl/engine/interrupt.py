"""Turns Ctrl-C and SIGTERM into a request to stop after the segment in flight."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A run that Ctrl-C or SIGTERM ended early; `results` holds the results so far.

    The same call with the same folder resumes it.
    """

    def __init__(self, message: str, results: Any):
        super().__init__(message)
        self.results = results


SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPING = "Stopping after this segment; interrupt again to stop at once."

_entered: list[Interrupt] = []  # in the main thread; the last one is asked
_elsewhere = False


class Interrupt:
    """While entered, the first signal requests a stop and the second stops at once."""

    def __init__(self, say: Callable[[str], None], words: str = STOPPING):
        """Takes what answers the first signal.

        Args:
          say: prints a line.
          words: that line.
        """
        self.requested = False
        self._say, self._words = say, words
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            _entered.append(self)
            if not _elsewhere:
                self._before = {number: signal.signal(number, _heard) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self in _entered:
            _entered.remove(self)


def request() -> bool:
    """Asks what is entered to stop; False if nothing is, or if it had been asked before."""
    if not _entered or _entered[-1].requested:
        return False
    asked = _entered[-1]
    asked.requested = True
    asked._say(asked._words)
    return True


def handled_elsewhere() -> None:
    """Leaves signals to a handler of the process's own, which calls `request`."""
    global _elsewhere
    _elsewhere = True


def _heard(number: int, frame: Any) -> None:
    if not request():
        raise KeyboardInterrupt
