"""A sweep that a test starts as a process of its own, kills, and starts again."""

import sys
import time

import jax
import numpy as np

jax.config.update("jax_num_cpu_devices", 2)

from tests.engine.toys import dataset, line_trial  # noqa: E402

from jdl import sweep  # noqa: E402
from jdl.engine.executor import LocalExecutor  # noqa: E402

start = LocalExecutor.start


def slower(pause):
    """Segments that last long enough to be killed in."""

    def slow(self, order):
        start(self, order)
        time.sleep(pause)

    return slow


def make_trial(hp):
    return line_trial(hp["lr"] * {"a": 1.0, "b": 0.5}[hp["half"]], steps=120)


def climbing(space, trials):
    """A search that learns: rates drawn near the best one so far."""
    random = np.random.default_rng(0)
    told, asked = [], 0

    def ask(count):
        nonlocal asked
        count = min(count, trials - asked)
        asked += count
        best = max(told, default=(0, 0.02), key=lambda pair: pair[0])[1]
        return [
            {"lr": float(best * np.exp(random.normal())), "half": str(random.choice(["a", "b"]))}
            for _ in range(count)
        ]

    def tell(configs, scores):
        told.extend((s, c["lr"]) for c, s in zip(configs, scores) if s == s)

    return sweep.Search(ask, tell, "climbing", adaptive=True)


SPACE = {"lr": sweep.log_uniform(1e-3, 1e-1), "half": sweep.choice("a", "b")}
MODES = {
    "plain": {"trials": 40, "lanes": 1},
    "asha": {"trials": 40, "lanes": 2, "stopping": sweep.asha(reduction=2)},
    "halving": {
        "trials": 40,
        "lanes": 2,
        "stopping": sweep.successive_halving(reduction=2, cohort=10),
    },
    "adaptive": {"trials": 40, "lanes": 2, "stopping": sweep.patience(2)},
    "optuna": {"trials": 40, "lanes": 2, "stopping": sweep.asha(reduction=2)},
    "pbt": {"trials": 12, "epochs": 24, "population": sweep.pbt(quantile=0.3)},
}


def main(out, mode="plain", pause="0.03"):
    LocalExecutor.start = slower(float(pause))
    search = climbing(SPACE, 40) if mode == "adaptive" else None
    if mode == "optuna":
        from jdl.sweep.optuna import optuna_search

        search = optuna_search(SPACE, 40, batch=8)
    results = sweep.run(
        make_trial,
        SPACE,
        dataset(),
        batch_size=4,
        checkpoint_seconds=0.2,
        search=search,
        out=out,
        **{"epochs": 8} | MODES[mode],
    )
    print(repr(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
