"""Many trials and many sweeps: host time, memory and files, with a device that only pretends."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator

import jax
import numpy as np
import pytest
from tests.engine.toys import dataset, line_trial

from jdl import sweep
from jdl.engine import store
from jdl.engine.goal import Goal
from jdl.engine.group import Group, Queued
from jdl.engine.loop import Loop, Supply
from jdl.engine.plan import lane_mesh, make_plan
from jdl.engine.program import LaneProgram, Outcome, trace_shapes
from jdl.engine.progress import Progress
from jdl.engine.workload import make_workload

REPORTS = 16


class Pretended(LaneProgram):
    """A lane program that trains nothing: a lane's loss is a function of its numbers."""

    def empty(self):
        return {"nothing": np.zeros(self.width)}

    def place(self, lanes):
        return lanes


def pretend(group: Group) -> LaneProgram:
    def run(lanes, assignment, seed, count, data):
        rate = np.asarray(assignment.numbers["lr"], np.float32)
        loss = np.broadcast_to(rate[:, None, None], (group.width, REPORTS, len(group.names)))
        final = np.broadcast_to(rate[:, None], (group.width, len(group.final_names)))
        steps = (group.done + int(count)) * group.work.report_every
        progress = np.stack([steps, np.full(group.width, -1)], axis=1)
        return lanes, Outcome(loss, final, progress)

    sharding = jax.sharding.NamedSharding(lane_mesh(1), jax.sharding.PartitionSpec())
    return Pretended(run, group.shapes, group.width, sharding, sharding, 0.0, None)


def resident() -> int:
    """Bytes of memory that this process has now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def simulate(trials: int, out, lanes: int = 256) -> Iterator[tuple[int, float, int]]:
    """Runs `trials` pretended trials under ASHA: (ended, seconds, bytes) now and then."""
    space = sweep.parse_space({"lr": sweep.log_uniform(1e-3, 1.0)})
    search = sweep.random_search(space, trials)
    work = make_workload(
        lambda numbers: line_trial(numbers["lr"]),
        dataset(),
        epochs=None,
        steps=REPORTS,
        batch_size=4,
        report_every=1,
        eval_batch_size=8,
        diverged_above=1e6,
    )
    example = {"lr": np.float32(0.1)}
    shapes, mesh = trace_shapes(work, example), lane_mesh(1)
    plan = make_plan(work, shapes, trials, mesh, lanes)
    group = Group("", work, shapes, plan, [Queued(0, example, 0)], mesh, 0)
    group.queue.clear()
    group.build = lambda lanes=None: pretend(group)  # type: ignore[method-assign]
    db = store.Store(out)
    db.begin({"steps": REPORTS}, group.names)
    asked = ended = 0
    running: dict[int, dict] = {}
    marks: list[tuple[int, float, int]] = []
    start = time.perf_counter()

    def ask(count, turn, again):
        nonlocal asked
        given = list(enumerate(search.ask(count), asked))
        asked += len(given)
        running.update(given)
        db.add_trials(given, turn, count)
        return [(group, Queued(t, {"lr": np.float32(c["lr"])}, t)) for t, c in given]

    def tell(scores):
        nonlocal ended
        search.tell([running.pop(trial) for trial, _ in scores], [score for _, score in scores])
        before, ended = ended, ended + len(scores)
        if ended * 10 // trials > before * 10 // trials:
            marks.append((ended, time.perf_counter() - start, resident()))

    supply = Supply(ask, tell, lambda: trials - asked, False)
    goal = Goal("valid_loss", -1)
    loop = Loop(
        [group], db, goal, supply=supply, stopping=sweep.asha(), keep=0, progress=Progress(False)
    )
    stats = loop.run({})
    assert stats.complete and db.counts() == {"done": db.counts()["done"]} | {
        "stopped": trials - db.counts()["done"]
    }
    marks.append((trials, time.perf_counter() - start, resident()))
    yield from marks
    db.close()


def test_pretended_trials_cost_the_host_little(tmp_path):
    *_, (_, seconds, _) = simulate(5_000, tmp_path / "run")
    # A hundred times what is wanted of a quiet machine would be a defect of kind, not of load.
    assert seconds / 5_000 < 5e-3
    assert len(list((tmp_path / "run").iterdir())) <= 5


@pytest.mark.slow
def test_a_million_pretended_trials(tmp_path):
    """Queue, stopping and store: under 50 us a trial, flat memory, at most five files."""
    marks = list(simulate(1_000_000, tmp_path / "run"))
    files = len(list((tmp_path / "run").iterdir()))
    _, seconds, last = marks[-1]
    growth = last - marks[0][2]
    print(
        f"\n{seconds / 1e6 * 1e6:.1f} us a trial, {files} files, from the first 100,000 trials on"
    )
    print(f"memory grew by {growth / 2**20:.0f} MiB, {growth / 900_000:.0f} bytes a trial")
    assert files <= 5
    assert seconds / 1_000_000 < 50e-6
    # What ASHA must know of a trial: one score at each rung that it came to.
    assert growth / 900_000 < 150


@pytest.mark.slow
def test_two_hundred_sweeps_leave_no_memory_behind():
    def once():
        results = sweep.run(
            lambda hp: line_trial(hp["lr"]),
            {"lr": sweep.log_uniform(1e-3, 1e-1)},
            dataset(),
            trials=8,
            epochs=2,
            batch_size=4,
            lanes=2,
            devices=2,
            stopping=sweep.asha(reduction=2),
            progress=False,
        )
        assert results.compilations == 1

    sizes = []
    for index in range(200):
        once()
        if index in (49, 199):
            gc.collect()
            sizes.append(resident())
    print(f"\n{sizes[0] / 2**20:.0f} MiB after 50 sweeps, {sizes[1] / 2**20:.0f} after 200")
    assert sizes[1] < 1.02 * sizes[0]
