"""What must hold on an accelerator: `pytest -m gpu`, a minute or two where there is one."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import data, models, optim, sweep, train
from jdl.bench.record import read
from jdl.cli import doctor
from jdl.engine.contract import trace_shapes
from jdl.engine.devices import lane_mesh
from jdl.engine.memory import device_bytes, program_bytes
from jdl.engine.program import compile_lanes
from jdl.engine.workload import Workload

pytestmark = pytest.mark.gpu
RATES = sweep.log_grid(1e-4, 1e-2, 8)
# Accelerators multiply float32 with fewer bits unless told otherwise, and sum in another order.
CLOSE = {"rtol": 2e-2, "atol": 2e-3}


@pytest.fixture(scope="module", autouse=True)
def accelerator():
    if jax.default_backend() == "cpu":
        pytest.skip("JAX finds no accelerator here")
    return jax.devices()[0]


def networks(name):
    """A maker of trials and its data: a perceptron, or a CNN."""
    if name == "mlp":
        model, splits = models.mlp((64, 10)), data.digits()
    else:
        model, splits = models.cnn(10, features=(8, 16)), data.digits(image=True)
    return lambda hp: train.classifier(model, optim.adam(hp["lr"])), splits


def swept(name, **options):
    make_trial, splits = networks(name)
    settings = {"epochs": 2, "seed": 3, "progress": False, **options}
    return sweep.run(make_trial, {"lr": RATES}, splits, **settings)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_lanes_equal_one_lane(name):
    many, one = swept(name, lanes=8, devices=1), swept(name, lanes=1, devices=1)
    np.testing.assert_allclose(many.curves("valid_loss"), one.curves("valid_loss"), **CLOSE)
    assert many.count("done") == 8


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_results_are_those_of_the_cpu(name):
    with jax.default_matmul_precision("highest"):
        here = swept(name, epochs=1, devices=1)
        there = swept(name, epochs=1, devices=jax.devices("cpu")[:1])
    np.testing.assert_allclose(here.curves("valid_loss"), there.curves("valid_loss"), **CLOSE)


def test_the_main_job_runs(tmp_path):
    command = [sys.executable, "-c", "from jdl.cli import main; main()", "sweep"]
    command += ["--trials", "60", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = sweep.read(tmp_path)
    assert results.complete
    assert results.best.metrics["valid_accuracy"] > 0.95


def wide(floats):
    """A trial with `floats` numbers of state, and its workload."""

    def make(hp):
        def init(key, batch):
            return jnp.zeros(floats)

        def step(state, batch, key):
            return state + hp["lr"] * jnp.mean(batch[0]), {"loss": jnp.mean(state)}

        def evaluate(state, batch):
            return {"loss": jnp.mean(state)}

        return train.Trial(init, step, evaluate)

    return make


def line():
    x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    return data.from_arrays(x, x[:, 0])


def test_donated_lanes_take_their_memory_once_and_the_account_is_the_peak(accelerator):
    """Sixteen lanes of 64 MiB: the compiler's figure within 15 % of what the allocator saw."""
    if not (accelerator.memory_stats() or {}).get("peak_bytes_in_use"):
        pytest.skip("The device does not tell its memory")
    x = jax.ShapeDtypeStruct((64, 1), jnp.float32)
    splits = {split: (x, jax.ShapeDtypeStruct((64,), jnp.float32)) for split in ("train", "valid")}
    batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((8, *a.shape[1:]), a.dtype), splits)
    work = Workload(wide(2**24), batch["train"], splits, 8, 4, 1, 64, 1e6)
    shapes = trace_shapes(work, {"lr": np.float32(0.1)})
    account = program_bytes(compile_lanes(work, shapes, lane_mesh(1), 16, 1))
    assert 2**30 <= account < 1.5 * 2**30
    before = accelerator.memory_stats()["peak_bytes_in_use"]
    if before > 2**29:
        pytest.skip("Other tests of this process have used more memory; run this one alone")
    sweep.run(wide(2**24), {"lr": RATES}, line(), steps=8, batch_size=8, lanes=16, progress=False)
    peak = accelerator.memory_stats()["peak_bytes_in_use"]
    assert 0.85 * account < peak < 1.15 * account


def test_too_many_lanes_are_narrowed(capfd):
    """Lanes of a tenth of the device's memory: 64 are asked for, and the sweep is done."""
    room = device_bytes(lane_mesh(1))
    if room is None:
        pytest.skip("The device does not tell its memory")
    results = sweep.run(
        wide(room // 40),
        {"lr": RATES},
        line(),
        steps=8,
        batch_size=8,
        lanes=64,
        devices=1,
        keep=0,
    )
    assert results.count("done") == 8
    assert "Narrowed to" in "".join(capfd.readouterr())


def test_a_run_cut_by_its_budget_goes_on(tmp_path):
    whole = swept("mlp", epochs=8, lanes=2, devices=1)
    for _ in range(100):
        part = swept("mlp", epochs=8, lanes=2, devices=1, seconds=0.05, out=tmp_path)
        if part.complete:
            break
    assert part.complete
    np.testing.assert_allclose(part.curves("valid_loss"), whole.curves("valid_loss"), **CLOSE)


def test_a_population_copies_on_the_device():
    make_trial, splits = networks("mlp")
    results = sweep.run(
        make_trial,
        {"lr": sweep.log_uniform(1e-4, 1e-2)},
        splits,
        trials=8,
        epochs=4,
        population=sweep.pbt(),
        progress=False,
    )
    assert results.lineage and results.count("done") == 8


def test_a_quick_bench_measures_both_dtypes_and_the_lanes(tmp_path):
    command = [sys.executable, "-c", "from jdl.cli import main; main()", "bench", "--quick"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    record = read(tmp_path / "bench.json")
    assert record.machine["platform"] == jax.default_backend() and record.left_out == []
    ceilings = {(m.name, m.dtype) for m in record.measurements if m.group == "ceilings"}
    assert ceilings == {("matmul", "float32"), ("matmul", "bfloat16"), ("copy", "float32")}
    lanes = [m for m in record.measurements if m.group == "lanes"]
    assert len(lanes) == 2 and all(m.details["program_bytes"] > 0 for m in lanes)


def test_doctor_names_the_accelerator():
    machine = doctor.look()
    assert machine.backend == jax.default_backend() and not machine.failure
    assert doctor.problems(machine) == []
