"""A sweep of trials that train nothing, for what the host alone costs; a process of its own."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np
from tests.engine.toys import dataset, line_trial

from jdl import sweep
from jdl.engine import store
from jdl.engine.contract import trace_shapes
from jdl.engine.goal import Goal
from jdl.engine.group import Group, Queued
from jdl.engine.loop import Loop
from jdl.engine.plan import lane_mesh, make_plan
from jdl.engine.program import LaneProgram, Outcome
from jdl.engine.progress import Progress
from jdl.engine.supply import Supply
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


def main(trials, out):
    start = time.process_time()
    marks = list(simulate(int(trials), out))
    cpu = time.process_time() - start
    print(json.dumps({"marks": marks, "files": len(os.listdir(out)), "cpu_seconds": cpu}))


if __name__ == "__main__":
    main(*sys.argv[1:])
