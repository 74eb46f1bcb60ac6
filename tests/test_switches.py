"""Every switch of JAX that a user may set before JAX starts: training goes on as without it."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import json, sys
import jax
import jax.numpy as jnp
import numpy as np
from jdl import data, diagnose, models, optim, sweep, train

random = np.random.default_rng(0)
x = random.normal(size=(60, 3)).astype(np.float32)
y = (x @ np.array([1, -2, 0.5]) > 0).astype(np.int32)
splits = [(x[a:b], y[a:b]) for a, b in ((0, 36), (36, 49), (49, 60))]
options = {"epochs": 2, "batch_size": 8, "eval_batch_size": 8, "progress": False}

def make(hp):
    return train.classifier(models.mlp((4, 2)), optim.adam(hp["lr"]))

def run():
    # Three trials on four lanes: one lane is left empty.
    space = {"lr": sweep.log_grid(0.003, 0.1, 3)}
    results = sweep.run(make, space, splits, lanes=4, devices=1, **options)
    assert results.count("done") == 3
    return [trial.metrics for trial in results.trials]

def fit():
    return train.fit(make({"lr": 0.01}), splits, **options).metrics

def streamed():
    stream = data.Stream(lambda step: iter([(x[:8], y[:8])] * 100), 4)
    return train.fit(make({"lr": 0.01}), data.Dataset(stream, *splits[1:]), **options).metrics

def minimize():
    told = optim.minimize(lambda w: jnp.sum((w - 3.0) ** 2), jnp.zeros(2, jnp.float32))
    return {"params": told.params.tolist(), "status": int(told.status)}

def check():
    return [f.verdict for f in diagnose.examine(make({"lr": 0.01}), splits).findings]

def devices():
    run()
    return len(jax.devices())

told = {}
for name in sys.argv[1:]:
    try:
        told[name] = globals()[name]()
    except Exception as error:
        told[name] = f"{type(error).__name__}: {error}"
print(json.dumps(told))
"""
ENTRIES = ["run", "fit", "minimize", "check"]


def told_under(switch, *entries):
    """What each of `entries` says in a process of its own, with `switch` set."""
    hidden = ("JAX_", "XLA_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    name, _, value = switch.partition("=")
    source = str(pathlib.Path(__file__).parents[1] / "src")
    path = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])
    environment |= {"PYTHONPATH": path} | ({name: value} if name else {})
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, *entries], env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def plain():
    return told_under("", *ENTRIES)


def assert_close(told, plain):
    if isinstance(plain, dict):
        assert told.keys() == plain.keys()
        for name in plain:
            assert_close(told[name], plain[name])
    elif isinstance(plain, list) and isinstance(plain[0], dict):
        for one, other in zip(told, plain, strict=True):
            assert_close(one, other)
    elif isinstance(plain, str) or (isinstance(plain, list) and isinstance(plain[0], str)):
        assert told == plain
    else:
        np.testing.assert_allclose(told, plain, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "switch",
    [
        "JAX_ENABLE_X64=1",
        "JAX_DEBUG_NANS=1",
        "JAX_NUMPY_DTYPE_PROMOTION=strict",
        "JAX_NUMPY_RANK_PROMOTION=raise",
        "JAX_DEFAULT_MATMUL_PRECISION=highest",
        "JAX_DEBUG_KEY_REUSE=1",
    ],
)
def test_training_under_a_switch_is_that_without(switch, plain):
    told = told_under(switch, *ENTRIES)
    for entry in ENTRIES:
        assert not isinstance(told[entry], str), told[entry]
        assert_close(told[entry], plain[entry])


@pytest.mark.slow
def test_training_moves_nothing_to_a_device_implicitly(plain):
    """JAX's own `zeros` and `key` do, so `minimize` and `check` cannot run so."""
    told = told_under("JAX_TRANSFER_GUARD=disallow", "run", "fit", "streamed")
    assert_close(told, told_under("", "run", "fit", "streamed"))


def test_what_no_compiler_may_touch_is_refused_at_once():
    told = told_under("JAX_DISABLE_JIT=1", "run", "fit", "check")
    for said in told.values():
        assert said.startswith("RuntimeError: jax_disable_jit (JAX_DISABLE_JIT) is on")


@pytest.mark.parametrize(
    ("switch", "count"),
    [
        ("XLA_FLAGS=--xla_force_host_platform_device_count=5", 5),
        ("JAX_NUM_CPU_DEVICES=3", 3),
        ("", len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
    ],
)
def test_the_number_of_devices_that_a_user_asks_for(switch, count):
    assert told_under(switch, "devices")["devices"] == count
