"""`python -m sweep_contestants NAME STEPS`: a contestant that waits for its turns.

It takes one JSON request a line ({"rates": [...]}) and answers one line each, so that the
processes of all contestants can be alive and take turns.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

from sweep_contestants.base import Ready
from sweep_contestants.ours import jdl_folder, jdl_program, jdl_sweep
from sweep_contestants.with_optax import optax_scan, optax_step, optax_vmap
from sweep_contestants.with_torch import optuna_torch, torch_loop

CONTESTANTS: dict[str, Callable[[int], Ready]] = {
    "jdl": jdl_sweep,
    "jdl-folder": jdl_folder,
    "jdl-program": jdl_program,
    "step": optax_step,
    "scan": optax_scan,
    "vmap": optax_vmap,
    "vmap-replace": lambda steps: optax_vmap(steps, replace=True),
    "vmap-2": lambda steps: optax_vmap(steps, cores=len(os.sched_getaffinity(0))),
    "torch": torch_loop,
    "torch-compiled": lambda steps: torch_loop(steps, compiled=True),
    "optuna": optuna_torch,
    "optuna-compiled": lambda steps: optuna_torch(steps, compiled=True),
}


def main(name: str, steps: int) -> None:
    """Answers requests on standard input until it closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints does not mix with the answers
    ready = CONTESTANTS[name](steps)
    print(json.dumps({"compile_seconds": ready.compile_seconds}), file=answers, flush=True)
    for line in sys.stdin:
        rates = json.loads(line)["rates"]
        start = time.perf_counter()
        done = ready.turn(rates)
        seconds = time.perf_counter() - start - done.compile_seconds
        answer = {"seconds": seconds, **done._asdict(), "trials": len(done.accuracy)}
        print(json.dumps(answer), file=answers, flush=True)
    ready.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
