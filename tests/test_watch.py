"""The live view: what it says of a run at each look, on a terminal and off it."""

from __future__ import annotations

import io
import signal

import pytest
from rich.console import Console
from tests.made_up import made_up

from jdl import sweep
from jdl.cli import watch


def at(results, running, pending, in_use=True):
    """The same run at an earlier time."""
    trials = [
        t._replace(status="pending", metrics={})
        if t.trial in pending
        else t._replace(status="running" if t.trial in running else t.status)
        for t in results.trials
    ]
    named = {"valid_accuracy": results.curves()}
    return sweep.Results(
        results.specification, trials, named, {}, None, results.lanes, in_use=in_use
    )


@pytest.fixture
def run(monkeypatch):
    """A folder that reads as four states of a run, one after the other."""
    whole = made_up(12, stopping=False)
    states = [
        at(whole, {0, 1}, set(range(2, 12))),
        at(whole, {2, 3}, set(range(4, 12))),
        at(whole, {2, 3}, set(range(4, 12))),
        whole,
    ]
    looks = iter(states)
    monkeypatch.setattr(sweep, "read", lambda folder: next(looks))
    return whole


@pytest.mark.parametrize("terminal", [False, True])
def test_a_run_is_followed_to_its_end(run, terminal, tmp_path):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=150)
    waits = []
    watch.watch(tmp_path, console, every=0.5, rest=waits.append)
    text = out.getvalue()
    assert waits == [0.5] * 3
    best = max(run.trials, key=lambda t: (t.status == "done") * t.metrics["valid_accuracy"])
    assert f"best validation accuracy {best.metrics['valid_accuracy']:.4g} (trial" in text
    if terminal:
        assert "━" in text and "program" in text and "adam" in text
    else:
        lines = text.splitlines()
        # One line for each look that brought something.
        assert [line.split(" · ")[0] for line in lines] == [
            "0 of 12 trials",
            "2 of 12 trials",
            "12 of 12 trials",
        ]
        assert "lanes busy" in lines[0] and "lanes busy" not in lines[2]


def test_the_best_come_first(run):
    found = watch.best_trials(run)
    values = [t.metrics["valid_accuracy"] for t in found]
    assert values == sorted(values, reverse=True)
    assert len(values) == 12 - run.count("diverged")


def test_ctrl_c_leaves_the_run_alone(run, tmp_path):
    def interrupted(seconds):
        signal.raise_signal(signal.SIGINT)

    out = io.StringIO()
    watch.watch(tmp_path, Console(file=out, width=150), rest=interrupted)
    assert out.getvalue().endswith("The run itself goes on.\n")


@pytest.mark.parametrize("terminal", [False, True])
def test_an_interrupted_run_is_not_waited_for(tmp_path, monkeypatch, terminal):
    """One look at a run that no process writes may come too early; two do not."""
    whole = made_up(12, stopping=False)
    running, idle = at(whole, {2, 3}, {*range(4, 12)}), at(whole, {2, 3}, {*range(4, 12)}, False)
    looks = iter([idle, running, idle, idle])
    monkeypatch.setattr(sweep, "read", lambda folder: next(looks))
    out, waits = io.StringIO(), []
    console = Console(file=out, force_terminal=terminal, width=150)
    watch.watch(tmp_path, console, rest=waits.append)
    assert "The run was interrupted." in out.getvalue()
    assert len(waits) == 3 and next(looks, None) is None


def test_a_run_that_ends_while_it_is_looked_at_was_not_interrupted(tmp_path, monkeypatch):
    whole = made_up(12, stopping=False)
    looks = iter([at(whole, {2, 3}, {*range(4, 12)}, False), whole])
    monkeypatch.setattr(sweep, "read", lambda folder: next(looks))
    out = io.StringIO()
    watch.watch(tmp_path, Console(file=out, width=150), rest=lambda seconds: None)
    assert "12 of 12 trials" in out.getvalue() and "interrupted." not in out.getvalue()
