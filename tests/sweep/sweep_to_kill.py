"""A sweep that a test starts as a process of its own, kills, and starts again."""

import sys
import time

import jax

jax.config.update("jax_num_cpu_devices", 2)

from tests.engine.toys import dataset, line_trial  # noqa: E402

from jdl import sweep  # noqa: E402
from jdl.engine.group import Group  # noqa: E402

dispatch = Group.dispatch


def slow(self, most):
    """A segment that lasts long enough to be killed in."""
    dispatch(self, most)
    time.sleep(0.03)


def make_trial(hp):
    return line_trial(hp["lr"] * {"a": 1.0, "b": 0.5}[hp["half"]], steps=40)


def main(out):
    Group.dispatch = slow
    space = {"lr": sweep.log_uniform(1e-3, 1e-1), "half": sweep.choice("a", "b")}
    results = sweep.run(
        make_trial,
        space,
        dataset(),
        trials=40,
        epochs=8,
        batch_size=4,
        lanes=2,
        checkpoint_seconds=0.2,
        out=out,
    )
    print(repr(results))


if __name__ == "__main__":
    main(sys.argv[1])
