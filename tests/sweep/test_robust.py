"""What can go wrong with disks and trials ends in a clear message and a folder that goes on."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from tests.engine.toys import dataset, line_trial

from jdl import sweep
from jdl.engine import cost, snapshot
from jdl.engine import run as engine_run
from jdl.engine.executor import LocalExecutor
from jdl.engine.journal import Journal
from jdl.engine.row import Row
from jdl.engine.snapshot import SNAPSHOT

SPACE = {"lr": sweep.log_uniform(1e-3, 5.0)}


def run(out=None, **options):
    given = {"trials": 24, "epochs": 8, "lanes": 2, "devices": 2, "progress": False} | options
    make = lambda hp: line_trial(hp["lr"], steps=40)  # noqa: E731
    return sweep.run(make, SPACE, dataset(), batch_size=4, out=out, **given)


RULES = {"none": None, "asha": sweep.asha(reduction=2)}


@pytest.fixture(scope="module", params=RULES)
def whole(request):
    return request.param, run(stopping=RULES[request.param])


def assert_same(one, two):
    assert [t[:4] for t in one.trials] == [t[:4] for t in two.trials]
    np.testing.assert_array_equal(one.curves("valid_loss"), two.curves("valid_loss"))


def test_a_disk_too_full_for_checkpoints(whole, tmp_path, monkeypatch, capsys):
    def full(path, blob):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot.checkpoint, "write_atomically", full)
    results = run(tmp_path / "run", stopping=RULES[whole[0]], checkpoint_seconds=0.0, progress=True)
    assert_same(results, whole[1])
    assert "No checkpoint written: [Errno 28] No space left on device" in capsys.readouterr().err


def test_a_disk_too_full_for_results(whole, tmp_path, monkeypatch):
    begin = Journal.begin

    def begun(self, *arguments, **notes):
        answer = begin(self, *arguments, **notes)
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        self._db.execute(f"PRAGMA max_page_count = {pages + 1}")
        return answer

    monkeypatch.setattr(Journal, "begin", begun)
    with pytest.raises(sweep.StoreError, match=r"cannot be written: .* full.* Free some space"):
        run(tmp_path / "run", stopping=RULES[whole[0]], keep=24)
    monkeypatch.undo()
    assert len(sweep.read(tmp_path / "run").trials) in (0, 24)
    assert_same(run(tmp_path / "run", stopping=RULES[whole[0]], keep=24), whole[1])


def test_a_folder_that_must_not_be_written(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()

    def refuse(*_, **__):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(sweep.StoreError, match="cannot be written: Read-only file system"):
        run(tmp_path / "run")


def interrupted(out, monkeypatch, **options):
    """A run that was asked to stop after some segments, with a checkpoint."""
    collect, calls = LocalExecutor.collect, []

    def stopping(self, row):
        calls.append(None)
        if len(calls) == 5:
            signal_handler[0].requested = True
        return collect(self, row)

    signal_handler = []
    made = engine_run.Interrupt

    def interrupt(progress):
        signal_handler[:] = [made(progress)]
        return signal_handler[0]

    monkeypatch.setattr(engine_run, "Interrupt", interrupt)
    monkeypatch.setattr(LocalExecutor, "collect", stopping)
    with pytest.raises(sweep.Interrupted, match="to resume"):
        run(out, **options)
    monkeypatch.undo()
    assert (out / SNAPSHOT).exists()


def test_going_on_in_order(whole, tmp_path, monkeypatch):
    options = {"stopping": RULES[whole[0]]}
    interrupted(tmp_path / "run", monkeypatch, **options)
    assert_same(run(tmp_path / "run", **options), whole[1])
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["lock", "run.sqlite"]


def test_a_deleted_checkpoint(whole, tmp_path, monkeypatch, capsys):
    options = {"stopping": RULES[whole[0]]}
    interrupted(tmp_path / "run", monkeypatch, **options)
    (tmp_path / "run" / SNAPSHOT).unlink()
    results = run(tmp_path / "run", progress=True, **options)
    said = " ".join(capsys.readouterr().err.split())
    assert f"{SNAPSHOT} is missing from" in said
    assert results.count("pending") == results.count("running") == 0
    if whole[0] == "none":
        assert_same(results, whole[1])
    else:
        assert "The finished table may differ" in said


def test_a_search_that_gives_something_else(tmp_path, monkeypatch):
    def search(first):
        rates = iter(np.geomspace(first, 0.1, 24).tolist())
        return sweep.Search(
            lambda n: [{"lr": r} for _, r in zip(range(n), rates)], lambda *_: None, "s", True
        )

    interrupted(tmp_path / "run", monkeypatch, search=search(0.01))
    with pytest.raises(
        sweep.StoreError, match=r"The search s gives .* must depend only on what it is"
    ):
        run(tmp_path / "run", search=search(0.02))


def test_going_on_with_other_devices(whole, tmp_path, monkeypatch):
    """Four lanes on two devices go on as four on one, and on three, to the same table."""
    for devices in (1, 3):
        out = tmp_path / str(devices)
        interrupted(out, monkeypatch, stopping=RULES[whole[0]])
        results = run(out, stopping=RULES[whole[0]], devices=devices)
        assert results.count("pending") == results.count("running") == 0
        assert_same(results, whole[1])


def test_a_trial_that_diverged_keeps_its_last_finite_state(monkeypatch):
    collect, states = Row.collect, {}

    def looked_at(self):
        segment = collect(self)
        for lane, trial, step in zip(segment.order.lanes, segment.order.trials, segment.failed):
            if step >= 0:
                states.setdefault(trial, (int(step), self.lane(lane).state))
        return segment

    monkeypatch.setattr(Row, "collect", looked_at)
    results = run()
    assert len(states) == results.count("diverged") > 1
    for steps, state in states.values():
        assert int(state.step) == steps < 40
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_the_tail_is_compacted(monkeypatch):
    options = {"stopping": RULES["asha"], "lanes": 8, "devices": 2, "epochs": 8, "trials": 16}
    wide = run(**options)
    assert wide.stats["compactions"] == 0 and wide.programs == 1
    monkeypatch.setattr(cost, "COMPILE_SECONDS", 0.0)
    narrow = run(**options)
    assert narrow.stats["compactions"] > 0
    assert narrow.programs == 1 + narrow.stats["compactions"]
    assert narrow.stats["lane_steps"] < wide.stats["lane_steps"]
    assert [t[:4] for t in narrow.trials] == [t[:4] for t in wide.trials]
    # Losses start at some 1 and fall to where rounding, which the width changes, is all there is.
    np.testing.assert_allclose(
        narrow.curves("valid_loss"), wide.curves("valid_loss"), rtol=1e-4, atol=1e-8
    )


def test_lanes_are_busy_while_trials_wait():
    results = run(trials=60, stopping=sweep.asha(reduction=2))
    assert results.stats["busy"] > 0.9
    assert run(trials=4).stats["busy"] == 1.0


def test_every_lane_is_busy_until_no_trial_waits():
    """A program whose queue is empty, and that has idle lanes, leaves its turns to the other."""

    def make(hp):
        # Of one program all trials are near each other, of the other all but a few stop.
        return line_trial(hp["lr"] * {"a": 1.0, "b": 0.1}[hp["half"]], steps=40)

    results = sweep.run(
        make,
        {"lr": sweep.log_uniform(1e-2, 1e-1), "half": sweep.choice("a", "b")},
        dataset(),
        trials=60,
        epochs=8,
        batch_size=4,
        lanes=2,
        devices=2,
        stopping=sweep.asha(reduction=2),
        progress=False,
    )
    segments = results.lanes.segments
    first = {int(trial): int(turn) for turn, trial, _ in segments[::-1]}
    assert len(first) == 60
    turns, seated = np.unique(segments[:, 0], return_counts=True)
    # Only where the first program seats its last trials, some of its lanes find none.
    assert np.sum(seated[turns < max(first.values())] < 4) <= 1
    assert results.stats["busy"] >= 0.95
    assert results.programs == 2 + results.stats["compactions"]
