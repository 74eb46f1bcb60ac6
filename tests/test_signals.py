"""Signals to a command: an answer within a second and the documented exit code, at any moment."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from tests.same import assert_same_table

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
SWEEP = ["sweep", "--optimizers", "adam", "--lr", "1e-3", "1", "4", "--seeds", "1"]
SWEEP += ["--hidden", "8", "--epochs", "40", "--devices", "2", "--no-plot"]
TRAIN = ["train", "--hidden", "8", "--epochs", "60", "--no-plot"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


class Command:
    """A command in a process of its own, and when it wrote each line."""

    def __init__(self, arguments, out):
        script = "import sys; from jdl.cli import main; sys.exit(main())"
        fast = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments, "--out", str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | fast,
        )
        self.lines: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line))

    def wait(self, until):
        while self.process.poll() is None and not until():
            time.sleep(0.005)

    def listens(self) -> bool:
        """Whether the process has a handler for SIGTERM, the first thing that the command does."""
        with contextlib.suppress(OSError):
            status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
            return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> 14 & 1)
        return False

    def has_said(self, text) -> bool:
        return any(text in line for _, line in self.lines)

    def send(self, number) -> float:
        self.process.send_signal(number)
        return time.monotonic()

    def end(self) -> tuple[int, str]:
        """The exit code, and everything that was said."""
        try:
            code = self.process.wait(60)
        finally:
            self.process.kill()
            self._reader.join()
            self.process.stdout.close()
        return code, "".join(line for _, line in self.lines)

    def seconds_to_words(self, since) -> float:
        words = ("Interrupted", "Stopping after")
        said = [at for at, line in self.lines if any(word in line for word in words)]
        return min(said) - since


def reported(out) -> int:
    """Rows in the table of reports, 0 before there is one."""
    try:
        with sqlite3.connect(f"file:{out}/run.sqlite?mode=ro", uri=True) as db:
            return db.execute("SELECT COUNT(*) FROM reports").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGTERM, ""), (signal.SIGINT, ""), (signal.SIGTERM, "4 trials")],
    ids=["SIGTERM first of all", "SIGINT first of all", "SIGTERM while tracing"],
)
def test_a_signal_before_training_ends_the_command(tmp_path, number, said):
    command = Command(SWEEP, tmp_path / "run")
    command.wait(lambda: command.has_said(said) if said else command.listens())
    sent = command.send(number)
    code, text = command.end()
    assert code == CODES[number]
    assert text.endswith("Interrupted. Run the same again to resume.\n")
    assert "Traceback" not in text
    assert command.seconds_to_words(sent) < 1


@pytest.mark.parametrize(
    ("arguments", "number"), [(SWEEP, signal.SIGINT), (TRAIN, signal.SIGTERM)], ids=["sweep", "fit"]
)
def test_a_second_signal_ends_a_run_at_once(tmp_path, arguments, number):
    out = tmp_path / "run"
    command = Command([*arguments, "--epochs", "100000"], out)
    command.wait(lambda: reported(out) > 0)
    sent = command.send(number)
    command.wait(lambda: command.has_said("Stopping after this segment"))
    again = command.send(number)
    code, text = command.end()
    # The first may have been answered in full by now.
    assert code == CODES[number]
    assert text.count("Run the same again to resume") == 1
    assert time.monotonic() - again < 2
    assert command.seconds_to_words(sent) < 1


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [SWEEP, TRAIN], ids=["sweep", "fit"])
def test_a_signal_at_any_moment(tmp_path, arguments):
    """The answer, the exit code and the table of the resumed run, over the whole life of a run."""
    random = np.random.default_rng(len(arguments))
    started = time.monotonic()
    whole = Command(arguments, tmp_path / "whole")
    assert whole.end()[0] == 0
    life, cuts = time.monotonic() - started, 6
    for cut in range(cuts):
        out = tmp_path / f"{cut}"
        command = Command(arguments, out)
        command.wait(command.listens)
        time.sleep((cut + random.uniform()) / cuts * life)
        number = (signal.SIGINT, signal.SIGTERM)[cut % 2]
        sent = command.send(number)
        code, text = command.end()
        assert "Traceback" not in text
        if code != 0:  # else it had come to its end
            assert code == CODES[number], text
            assert command.seconds_to_words(sent) < 1, text
            assert text.count("Run the same again to resume") == 1, text
        if (out / "run.sqlite").exists():
            code, text = Command(arguments, out).end()
            assert code == 0, text
            assert_same_table(out, tmp_path / "whole")


def test_a_signal_after_the_last_word_changes_nothing():
    code = (
        "import atexit, os, signal, sys; from jdl.cli import main;"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM));"
        "sys.argv = ['jdl', 'doctor']; sys.exit(main())"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode in (0, 1) and "Interrupted" not in ended.stderr
