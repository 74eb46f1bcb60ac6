"""Signals: the first asks a run to stop, the second stops it, and afterwards all is as before."""

from __future__ import annotations

import signal
import threading

import pytest

from jdl.engine import interrupt
from jdl.engine.interrupt import Interrupt
from jdl.engine.progress import Progress

SIGNALS = signal.SIGINT, signal.SIGTERM


class Said(Progress):
    def __init__(self):
        super().__init__(shown=False)
        self.said: list[str] = []

    def say(self, text):
        self.said.append(text)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_a_request_and_the_second_one_an_end(number):
    before = [signal.getsignal(one) for one in SIGNALS]
    progress = Said()
    with Interrupt(progress.say) as entered:
        assert not entered.requested and progress.said == []
        signal.raise_signal(number)
        assert entered.requested
        assert progress.said == ["Stopping after this segment; interrupt again to stop at once."]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_handlers_come_back_when_the_run_fails():
    before = [signal.getsignal(one) for one in SIGNALS]
    with pytest.raises(ZeroDivisionError), Interrupt(Said().say):
        assert all(signal.getsignal(one) not in before for one in SIGNALS)
        raise ZeroDivisionError
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_a_run_in_another_thread_leaves_signals_alone():
    """Only the main thread may set them."""
    before, found = [signal.getsignal(one) for one in SIGNALS], []

    def work():
        with Interrupt(Said().say) as entered:
            found.append([signal.getsignal(one) for one in SIGNALS])
            found.append(entered.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before, False]


def test_a_handler_elsewhere_asks_the_innermost_run_once(monkeypatch):
    before = [signal.getsignal(one) for one in SIGNALS]
    monkeypatch.setattr(interrupt, "_elsewhere", True)
    outer, inner = Said(), Said()
    assert not interrupt.request()
    with Interrupt(outer.say) as one:
        with Interrupt(inner.say, "enough") as two:
            assert [signal.getsignal(one) for one in SIGNALS] == before
            assert interrupt.request() and two.requested and not one.requested
            assert not interrupt.request()
        assert interrupt.request() and one.requested
    assert not interrupt.request()
    assert (inner.said, len(outer.said)) == (["enough"], 1)
