"""Programs in the cache: the same to the bit, replaced when damaged, and never another's."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.engine.test_program import segment
from tests.engine.toys import line_workload

from jdl.engine import cache
from jdl.engine.contract import trace_shapes
from jdl.engine.devices import lane_mesh
from jdl.engine.program import compile_lanes


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("JDL_CACHE_DIR", str(tmp_path / "kept"))
    return tmp_path / "kept" / "programs"


def double(x):
    return {"twice": 2 * x}


def compiled(function=double, facts=("double",), made=None):
    """`function` of three numbers by way of the cache; `made` gets what was compiled."""
    made = [] if made is None else made
    x = jnp.arange(3.0)

    def make():
        made.append(facts)
        return jax.jit(function).lower(x).compile()

    trees = jax.tree.structure(((x,), {})), jax.tree.structure({"twice": x})
    program, found = cache.compiled(facts, jax.devices()[:1], trees, make)
    assert found == (not made)
    return program(x)["twice"].tolist(), found


def test_a_program_is_compiled_once(place):
    assert compiled() == ([0, 2, 4], False) and compiled() == ([0, 2, 4], True)
    assert cache.size()[0] == 1 and cache.size()[1] == sum(
        f.stat().st_size for f in place.iterdir()
    )


def test_a_found_lane_program_computes_the_same_bits(place):
    work = line_workload()
    shapes = trace_shapes(work, {"lr": np.float32(0)})
    one, other = (compile_lanes(work, shapes, lane_mesh(2), 2, 2) for _ in range(2))
    assert (one.found, other.found) == (False, True) and other.memory is not None
    assert not compile_lanes(work, shapes, lane_mesh(2), 3, 2).found
    assert not compile_lanes(work, shapes, lane_mesh(2), 2, 1).found
    assert not compile_lanes(work, shapes, lane_mesh(1), 2, 2).found
    # Longer trials have the same steps, and more reports to hold.
    longer = work._replace(reports=2 * work.reports)
    shapes = trace_shapes(longer, {"lr": np.float32(0)})
    assert not compile_lanes(longer, shapes, lane_mesh(2), 2, 2).found
    rates, every = np.array([0.01, 0.03, 0.05, 1e20], np.float32), np.ones(4, bool)
    ends = [segment(p, p.empty(), rates, every, every, 3) for p in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *ends)
    again = [
        segment(p, p.place(end[0]), rates, ~every, ~every, 1) for p, end in zip((one, other), ends)
    ]
    jax.tree.map(np.testing.assert_array_equal, *again)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "another"])
def test_an_entry_that_does_not_load_is_replaced(place, damage):
    compiled()
    (path,) = place.iterdir()
    blob = bytearray(path.read_bytes())
    if damage == "flipped":
        blob[len(blob) // 2] ^= 4
    elif damage == "another":
        blob = zlib.crc32(b"no program").to_bytes(4, "big") + b"no program"
    path.write_bytes({"empty": b"", "cut": blob[: len(blob) // 2]}.get(damage, blob))
    assert compiled() == ([0, 2, 4], False) and compiled() == ([0, 2, 4], True)
    assert [*place.iterdir()] == [path]


def test_what_a_program_depends_on(place, monkeypatch):
    compiled()
    assert not compiled(facts=("another",))[1]
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    assert not compiled()[1]
    monkeypatch.delenv("XLA_FLAGS")
    with jax.default_matmul_precision("highest"):
        assert not compiled()[1]
    for part in ("_code", "_processor"):
        monkeypatch.setattr(cache, part, lambda: "another")
        assert not compiled()[1]
        monkeypatch.undo()
        monkeypatch.setenv("JDL_CACHE_DIR", str(place.parent))
    assert compiled()[1]


def test_the_longest_unused_programs_go_first(place, monkeypatch):
    for age, name in enumerate("abc"):
        compiled(facts=(name,))
        (newest,) = {*place.iterdir()} - {p for p in place.iterdir() if p.stat().st_mtime < 1e9}
        os.utime(newest, (age + 1, age + 1))
    each = max(path.stat().st_size for path in place.iterdir())
    assert compiled(facts=("a",))[1]  # used just now
    monkeypatch.setattr(cache, "MOST_BYTES", 3 * each + each // 2)
    assert not compiled(facts=("d",))[1]
    assert [compiled(facts=(name,))[1] for name in "acdb"] == [True, True, True, False]


def test_a_folder_that_cannot_be_written_is_said_and_the_run_goes_on(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JDL_CACHE_DIR", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"cannot be kept: .*Set JDL_CACHE_DIR"):
        assert compiled() == ([0, 2, 4], False)
    assert cache.size() == (0, 0)


def test_an_empty_setting_turns_it_off(tmp_path, monkeypatch):
    monkeypatch.setenv("JDL_CACHE_DIR", "")
    assert cache.folder() is None and cache.size() == (0, 0)
    assert [compiled()[1] for _ in range(2)] == [False, False]
    monkeypatch.setenv("JDL_CACHE_DIR", "~/programs")
    assert cache.folder() == pathlib.Path.home() / "programs"
    monkeypatch.delenv("JDL_CACHE_DIR")
    assert cache.folder().name == "jdl"


def test_a_program_that_calls_python_is_compiled_each_time(place):
    """Its function lives in one process and is no part of what is hashed."""
    for factor in (2.0, 3.0):

        def called(x, factor=factor):
            shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
            return {"twice": jax.pure_callback(lambda x: np.asarray(factor * x), shape, x)}

        assert compiled(called) == ([0, factor, 2 * factor], False)
    assert cache.size() == (0, 0)


SCRIPT = """
import numpy as np
from jdl import data, models, optim, sweep, train
x = np.linspace(-1, 1, 40, dtype=np.float32)[:, None]
splits = [(x, (x[:, 0] > 0).astype(np.int32))] * 2
make = lambda hp: train.classifier(models.mlp((3, 2)), optim.adam(hp["lr"]))
results = sweep.run(
    make, {"lr": sweep.log_grid(0.01, 1.0, 3)}, splits, epochs=2, batch_size=8, progress=False
)
print(results.stats["compilations"], results.stats["found"], [t.metrics for t in results.trials])
"""


def test_a_second_process_compiles_nothing(place):
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    source = str(pathlib.Path(__file__).parents[2] / "src")
    environment["PYTHONPATH"] = os.pathsep.join([source, environment.get("PYTHONPATH", "")])
    said = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert said[0].startswith("1 0 ") and said[1].startswith("0 1 ")
    assert said[0][4:] == said[1][4:]


OPERATIONS = {
    "qr": lambda x: jnp.linalg.qr(x)[0],
    "svd": lambda x: jnp.linalg.svd(x)[1],
    "eigh": lambda x: jnp.linalg.eigh(x @ x.T)[0],
    "cholesky": lambda x: jnp.linalg.cholesky(x @ x.T),
    "solve": lambda x: jnp.linalg.solve(x, x[0]),
    "triangular": lambda x: jax.scipy.linalg.solve_triangular(x, x[0]),
    "sort": lambda x: jnp.sort(x, 0),
    "top_k": lambda x: jax.lax.top_k(x, 2)[0],
    "fft": lambda x: jnp.abs(jnp.fft.fft(x)),
    "erf": jax.scipy.special.erf,
    "scatter": lambda x: jnp.zeros(4).at[jnp.array([1, 1, 3])].add(x[0]),
    "conv": lambda x: jnp.convolve(x[0], x[1]),
    "loop": lambda x: jax.lax.fori_loop(0, 3, lambda i, c: jnp.sin(c), x),
    "random": lambda x: jax.random.normal(jax.random.key(3), (3,)) + x[0],
}


def found_and_run(name):
    """What a process computes that neither traces nor lowers, if the program is found."""
    x = np.array([[2.0, 1.0, 0.5], [0.3, 3.0, 0.1], [0.2, 0.7, 4.0]], np.float32)
    made = []

    def make():
        made.append(name)
        return jax.jit(OPERATIONS[name]).lower(x).compile()

    one = jax.tree.structure(x)
    trees = jax.tree.structure(((x,), {})), one
    program, _ = cache.compiled((name,), jax.devices()[:1], trees, make)
    return ["found", "made"][len(made)], np.asarray(program(x)).tolist()


def test_a_found_program_runs_in_a_process_that_lowered_nothing(place):
    """Each operation that XLA leaves to a library: its functions are there before it is called."""
    expected = [found_and_run(name) for name in OPERATIONS]
    assert {made for made, _ in expected} == {"made"}
    script = (
        "import tests.conftest\n"
        "from tests.engine.test_cache import OPERATIONS, found_and_run\n"
        "for name in OPERATIONS:\n"
        "    print(found_and_run(name), flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert done.stdout.splitlines() == [str(("found", values)) for _, values in expected]


def test_a_program_from_the_cache_of_jax_is_not_kept_again(place, tmp_path):
    """It would load, and fail when it runs: JAX serializes only what it compiled itself."""
    script = (
        "import sys\n"
        "from tests.engine.test_cache import compiled\n"
        "made = []\n"
        "assert compiled(facts=(sys.argv[1],), made=made)[0] == [0, 2, 4]\n"
        "print('made' if made else 'found')\n"
    )
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "of_jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    told = [
        subprocess.run(
            [sys.executable, "-c", script, fact],
            env=os.environ | settings,
            cwd=pathlib.Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for fact in "aabb"
    ]
    # The second name of the computation is made by JAX's cache, and so is never ours.
    assert told == ["made", "found", "made", "made"]
