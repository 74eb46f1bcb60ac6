"""What one trace of a trial tells, how often it is traced, and by what its program is known."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.engine.toys import dataset, line_trial

from jdl import sweep, train
from jdl.data import Dataset
from jdl.engine import cost, tune
from jdl.engine.contract import fingerprint, trace_hash, trace_shapes
from jdl.engine.devices import lane_mesh
from jdl.engine.keys import trial_keys
from jdl.engine.program import compile_lanes, lane_segment
from jdl.engine.trial import adapted
from jdl.engine.workload import make_workload

NUMBERS = {"lr": np.float32(0.1), "unused": np.int32(3)}


def workload(make=lambda numbers: line_trial(numbers["lr"]), data=None, **options):
    options = {"batch_size": 4, "eval_batch_size": 4, "diverged_above": 1e6, **options}
    return make_workload(
        make, data or dataset(), epochs=2, steps=None, report_every=None, **options
    )


@pytest.fixture
def counted():
    """Trials that count how often their functions run under a trace, and of what shapes."""
    runs = {"make": 0, "init": 0, "step": 0, "evaluate": []}

    def traced(value):
        return isinstance(value, jax.core.Tracer)

    def make(numbers):
        trial = line_trial(numbers["lr"])
        runs["make"] += traced(numbers["lr"])

        def init(key, batch):
            runs["init"] += traced(key)
            return trial.init(key, batch)

        def step(state, batch, key):
            runs["step"] += traced(key)
            return trial.step(state, batch, key)

        def evaluate(state, batch):
            runs["evaluate"].append(batch[0].shape[0])
            return trial.evaluate(state, batch)

        return adapted(trial, init=init, step=step, evaluate=evaluate)

    return make, runs


def test_whatever_number_of_widths_is_compiled_a_trial_is_traced_once(counted):
    make, runs = counted
    work = workload(make)
    shapes = trace_shapes(work, {"lr": np.float32(0.1)})
    for lanes, devices, unroll in ((1, 1, 1), (3, 1, 2), (2, 2, 1)):
        compile_lanes(work, shapes, lane_mesh(devices), lanes, unroll)
    # Seven and five examples, four at once: batches of 4, 3 and 1.
    assert (runs["init"], runs["step"], sorted(runs["evaluate"])) == (1, 1, [1, 3, 4])
    assert runs["make"] == 1 + 1 + 3


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        ({"lanes": "tune"}, 1),
        ({"lanes": 8, "stopping": sweep.asha(), "epochs": 8, "trials": 8}, 1),
        ({"lanes": 2}, 2),
    ],
)
def test_a_sweep_traces_each_static_group_once(
    counted, monkeypatch, tmp_path, capsys, options, groups
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tune, "SECONDS", 1e-6)
    monkeypatch.setattr(cost, "COMPILE_SECONDS", 0.0)
    make, runs = counted
    space = {"lr": sweep.log_uniform(0.01, 0.1), "kind": sweep.choice("a", "b", static=True)}
    space = space if groups == 2 else {"lr": space["lr"]}
    options = {"epochs": 1, "trials": 16, "batch_size": 4, "eval_batch_size": 4} | options
    results = sweep.run(make, space, dataset(), devices=1, **options)
    assert results.stats["compactions"] == (2 if "stopping" in options else 0)
    widths = capsys.readouterr().err.count("lanes a device: ")
    assert options["lanes"] != "tune" or widths >= 2
    assert (runs["init"], runs["step"]) == (groups, groups)
    assert sorted(runs["evaluate"]) == sorted([1, 3, 4] * groups)
    assert runs["make"] == 5 * groups


@pytest.mark.parametrize("resident", [True, False])
def test_a_run_traces_its_trial_once(counted, resident):
    make, runs = counted
    trial = make({"lr": 0.05})
    options = {"epochs": 2, "batch_size": 4, "eval_batch_size": 4, "progress": False}
    train.fit(trial, dataset(), resident=resident, **options)
    assert (runs["init"], runs["step"], sorted(runs["evaluate"])) == (1, 1, [1, 3, 4])


def test_shapes_tell_what_a_lane_holds_and_reports():
    shapes = trace_shapes(workload(), NUMBERS)
    assert shapes.lane.state.x.shape == (10, 4, 3) and shapes.lane.step.dtype == np.int32
    assert shapes.numbers["unused"].dtype == np.int32 and shapes.numbers["lr"].shape == ()
    assert sorted(shapes.reports) == ["train_loss", "valid_loss"]
    assert sorted(shapes.final) == ["test_loss"] and shapes.used == {"lr"}
    alone = trace_shapes(workload(data=Dataset(dataset().train, None, None)), NUMBERS)
    assert sorted(alone.reports) == ["train_loss"] and alone.final == {}


def test_the_traced_trial_is_the_trial():
    work = workload()
    traced, own = trace_shapes(work, NUMBERS).trial(NUMBERS), work.trial(NUMBERS)
    keys, batch = trial_keys(1, 2), jax.tree.map(lambda a: jnp.asarray(a[:4]), dataset().valid)
    with jax.debug_key_reuse(False):
        results = []
        for trial in (traced, own):
            state = jax.jit(lambda key, trial=trial: trial.init(key, work.batch))(keys.init)
            after = jax.jit(trial.step)(state, batch, keys.trial)
            results.append((state, after, jax.jit(trial.evaluate)(state, batch)))
    assert jax.tree.structure(results[0]) == jax.tree.structure(results[1])
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_a_number_is_used_wherever_it_arrives():
    def make(numbers):
        trial = line_trial(0.1)
        return adapted(
            trial,
            init=lambda key, batch: trial.init(key, batch)._replace(
                start=numbers["a"] * jnp.ones(3)
            ),
            evaluate=lambda state, batch: {"loss": state.weights[0] * numbers["b"]},
        )

    numbers = {name: np.float32(1) for name in "abc"}
    assert trace_shapes(workload(make), numbers).used == {"a", "b"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"step": lambda s, b, k: (s._replace(step=0.5), {"loss": 0.0})},
            r"step: .*int32.*float32",
        ),
        ({"step": lambda s, b, k: (s._replace(weights=s.x), {"loss": 0.0})}, r"weights: \(\(3,\)"),
        ({"step": lambda s, b, k: ((s,), {"loss": 0.0})}, "same structure"),
        ({"step": lambda s, b, k: (s, {})}, "step must return metrics as a dict of at least one"),
        ({"step": lambda s, b, k: (s, {"loss": s.weights})}, r"step must .*\{'loss': \(3,\)\}"),
        ({"evaluate": lambda s, b: {"loss": s.weights}}, r"evaluate must .*\{'loss': \(3,\)\}"),
    ],
)
def test_a_trial_that_breaks_its_contract_is_refused(change, message):
    with pytest.raises(TypeError, match=f"(?s){message}"):
        trace_shapes(workload(lambda n: adapted(line_trial(n["lr"]), **change)), NUMBERS)


def traced(function, *args):
    return trace_hash([jax.make_jaxpr(function)(*args)])


def test_programs_are_told_apart_by_what_they_compute():
    x = jnp.ones(3)
    table = np.arange(2000, dtype=np.float32)
    other = table.copy()
    other[1000] += 1  # where printing an array would leave it out

    def inner(x):
        return 2 * x

    def another_name(y):
        return 2 * y

    def of(table):
        return lambda x: jax.jit(lambda x: x + table.sum())(x)

    assert traced(jax.jit(inner), x) == traced(jax.jit(another_name), x)
    assert traced(inner, x) != traced(lambda x: x * 2, x)
    assert traced(inner, x) != traced(lambda x: 2.0000002 * x, x)
    assert traced(inner, x) != traced(inner, jnp.ones(4))
    assert traced(of(jnp.asarray(table)), x) == traced(of(jnp.asarray(table)), x)
    assert traced(of(jnp.asarray(table)), x) != traced(of(jnp.asarray(other)), x)
    assert traced(lambda a, b: a - b, x, x) != traced(lambda a, b: b - a, x, x)
    assert trace_hash([], {"a": 1, "b": 2}) == trace_hash([], {"b": 2, "a": 1})
    assert trace_hash([], {"a": 1}) != trace_hash([], {"a": 2})


def test_the_program_of_a_workload_is_its_numbers_too():
    program = trace_shapes(workload(), NUMBERS).program
    assert program == trace_shapes(workload(), {**NUMBERS, "lr": np.float32(0.7)}).program
    for options in ({"eval_batch_size": 5}, {"diverged_above": 9.0}):
        assert trace_shapes(workload(**options), NUMBERS).program != program
    assert trace_shapes(workload(lambda n: line_trial(n["lr"] * 2)), NUMBERS).program != program


SCRIPT = """
import sys
if {odd}:
    sys.stdout.isatty = lambda: True  # where JAX prints programs in colours
import jax, numpy as np, jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jdl.engine.contract import trace_hash
if {odd}:
    np.set_printoptions(precision=1, threshold=2, linewidth=20)
mesh = jax.make_mesh((1, 1, 1), ("first", "second", "third"))
@jax.custom_jvp
def cube(x): return x ** 3
cube.defjvp(lambda x, t: (x[0] ** 3, 3 * x[0] ** 2 * t[0]))
def step(x, key):
    y = jax.shard_map(lambda x: 0.123456789 * x, mesh=mesh, in_specs=P(), out_specs=P(),
                      check_vma=False)(x)
    y = y + jax.random.normal(key, (3,)) + np.linspace(0, 1, 3, dtype=np.float32)
    return jax.grad(lambda y: jax.lax.map(cube, jax.nn.relu(y)).sum())(y)
traced = jax.make_jaxpr(step)(jnp.ones(3), jax.random.key(0))
print(trace_hash([traced]), str(traced).count("\\x1b"))
"""


def test_the_hash_of_a_program_does_not_depend_on_how_it_prints():
    """Nor on the seed of Python's hashes, by whose order a set of axes prints, nor on words."""
    hashes = set()
    for odd, environment in (
        (False, {"PYTHONHASHSEED": "1", "LC_ALL": "C", "TERM": "dumb"}),
        (True, {"PYTHONHASHSEED": "2", "PYTHONUTF8": "1", "TERM": "xterm"}),
    ):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(odd=odd)],
            env={**os.environ, **environment}, check=True, capture_output=True, text=True,
        )  # fmt: skip
        known, colours = done.stdout.split()
        hashes.add(known)
        assert (int(colours) > 0) == odd
    assert len(hashes) == 1 and len(hashes.pop()) == 12


def test_data_are_known_by_their_shapes_and_bytes():
    prints = fingerprint(Dataset(dataset().train, None, dataset().test))
    assert sorted(prints) == ["test", "train"]
    assert prints["train"]["shapes"] == [[20, 3], [20]]
    changed = dataset()
    changed.train[1][7] += 1e-3
    assert fingerprint(changed)["train"] != prints["train"]
    assert fingerprint(changed)["test"] == prints["test"]


@pytest.mark.parametrize("draws", [False, True])
def test_only_steps_that_draw_are_given_keys_of_their_own(draws):
    """Without noise no key is made for a step; with it the noise of each step is its key's."""

    def step(state, batch, key):
        noise = jax.random.normal(key) if draws else jnp.float32(1)
        return state + noise, {"loss": state}

    def make(numbers):
        return train.Trial(lambda key, batch: jnp.float32(0), step, lambda s, b: {"loss": s})

    work = workload(make)
    shapes = trace_shapes(work, {"lr": np.float32(0)})
    assert shapes.draws == draws
    segment, like = lane_segment(work, shapes, lane_mesh(1), 1, 1)
    # The permutation of the epoch folds in its number; each step's key would be another fold.
    assert segment.lower(*like).as_text().count("func.func private @_threefry_fold_in") <= 1 + draws
    results = sweep.run(
        lambda hp: make(None), {"lr": 1.0}, dataset(), epochs=1, batch_size=4, progress=False
    )
    trial = trial_keys(np.uint32(0), np.uint32(0)).trial
    with jax.debug_key_reuse(False):
        noise = [jax.random.normal(jax.random.fold_in(trial, n)) for n in range(5)]
    expected = np.sum(noise) if draws else 5
    np.testing.assert_allclose(results.trials[0].state, expected, rtol=1e-6)
