"""Turns Ctrl-C and SIGTERM into a request to stop after the segment in flight."""

from __future__ import annotations

import signal
import threading
from typing import Any

from jdl.engine.progress import Progress


class Interrupted(KeyboardInterrupt):
    """A run that Ctrl-C or SIGTERM ended early; `results` holds the results so far.

    The same call with the same folder resumes it.
    """

    def __init__(self, message: str, results: Any):
        super().__init__(message)
        self.results = results


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """While entered, the first signal requests a stop and the second stops at once."""

    def __init__(self, progress: Progress):
        self.requested = False
        self._progress = progress
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._request) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._progress.say("Stopping after this segment; interrupt again to stop at once.")
