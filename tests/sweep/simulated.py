"""A sweep of trials that train nothing, for what the host alone costs; a process of its own."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator

import numpy as np
from tests.engine.pretended import EVERY, PretendedExecutor, group

from jdl import sweep
from jdl.engine.events import Queued
from jdl.engine.executor import Taken
from jdl.engine.goal import Goal
from jdl.engine.journal import Journal
from jdl.engine.policy import Policy
from jdl.engine.progress import Progress
from jdl.engine.row import Collected
from jdl.engine.run import Limits, run_trials
from jdl.engine.supply import Given, Supply

REPORTS = 16


class Immediate(PretendedExecutor):
    """A lane's loss is its trial's rate, at every report."""

    def start(self, order):
        rates = self._rates
        for _, queued in order.fresh:
            rates[queued.trial] = float(queued.numbers["lr"])
        loss = np.array([rates[trial] for trial in order.trials])
        values = np.broadcast_to(loss[:, None, None], (len(loss), order.reports, 1))
        trial = dict(zip(order.lanes, order.trials))
        tests = {trial[lane]: {"test_loss": rates[trial[lane]]} for lane in order.finishing}
        self._flying[order.row] = Collected(order, values, np.full(len(loss), -1), tests)

    def take(self, row, leaving):
        return Taken()

    def join(self, group, lanes, width):
        super().join(group, lanes, width)
        self._rates: dict[int, float] = {}


def resident() -> int:
    """Bytes of memory that this process has now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def simulate(trials: int, out, lanes: int = 256) -> Iterator[tuple[int, float, int]]:
    """Runs `trials` pretended trials under ASHA: (ended, seconds, bytes) now and then."""
    space = sweep.parse_space({"lr": sweep.log_uniform(1e-3, 1.0)})
    search = sweep.random_search(space, trials)
    asked = ended = 0
    running: dict[int, dict] = {}
    marks: list[tuple[int, float, int]] = []
    start = time.perf_counter()

    def ask(count):
        nonlocal asked
        given = list(enumerate(search.ask(count), asked))
        new = [] if asked else [group("", lanes, 1, 10**4)]
        asked += len(given)
        running.update(given)
        queued = [("", Queued(t, {"lr": np.float32(c["lr"])}, t)) for t, c in given]
        return Given(queued, given, new)

    def tell(scores):
        nonlocal ended
        search.tell([running.pop(trial) for trial, _ in scores], [score for _, score in scores])
        before, ended = ended, ended + len(scores)
        if ended * 10 // trials > before * 10 // trials:
            marks.append((ended, time.perf_counter() - start, resident()))

    supply = Supply("random", ask(4096), ask, tell, lambda: trials - asked, False)
    journal = Journal(out)
    journal.begin({"steps": REPORTS * EVERY}, ["valid_loss"], supply.first.configs)
    policy = Policy(REPORTS, EVERY, sweep.asha().start())
    stats = run_trials(
        policy, Immediate(1), journal, supply, Goal("valid_loss", -1), Progress(False),
        limits=Limits(keep=0),
    )  # fmt: skip
    done = journal.counts()["done"]
    assert stats.complete and journal.counts() == {"done": done, "stopped": trials - done}
    marks.append((trials, time.perf_counter() - start, resident()))
    yield from marks
    journal.close()


def main(trials, out):
    start = time.process_time()
    marks = list(simulate(int(trials), out))
    cpu = time.process_time() - start
    print(json.dumps({"marks": marks, "files": len(os.listdir(out)), "cpu_seconds": cpu}))


if __name__ == "__main__":
    main(*sys.argv[1:])
