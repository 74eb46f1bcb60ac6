"""Answers Ctrl-C and SIGTERM within a second, whatever the command is doing.

Python runs a signal's handler between two bytecodes of the main thread. That is too
late during a compilation, and an exception raised there is lost in an import or in a
callback of JAX. So a thread reads the signals from a pipe, and ends the process itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import NoReturn

from jdl.engine import interrupt

heard: list[int] = []  # the signals so far


def answer(words: str) -> None:
    """From now on the first signal asks a run to stop; a second, or one without a run, ends all.

    Args:
      words: what is said when the process is ended.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    interrupt.handled_elsewhere()
    threading.Thread(target=_listen, args=(reading, words), daemon=True).start()
    for number in interrupt.SIGNALS:
        signal.signal(number, lambda *_: None)


def ignore() -> None:
    """From now on signals change nothing: a command that is done ends with its own exit code.

    While the interpreter ends it takes handlers away, and a signal would kill the process.
    """
    for number in interrupt.SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _listen(reading: int, words: str) -> None:
    while True:
        (number,) = os.read(reading, 1)
        if number in interrupt.SIGNALS:
            heard.append(number)
            asked = False
            with contextlib.suppress(OSError):  # the terminal is gone
                asked = interrupt.request()
            if not asked:
                end(words, number)


def end(words: str, number: int) -> NoReturn:
    """Ends the process as one that signal `number` ended.

    The interpreter's own end would wait for compilations on threads, and crashes in JAX
    when one was cut off. Nothing is lost: every file of a run survives a kill.
    """
    # A progress line may stand there, and hides the cursor.
    tidy = "\r\x1b[K\x1b[?25h" if sys.stderr.isatty() else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{tidy}{words}\n".encode())
    os._exit(128 + number)
