"""Mistakes that other libraries' tests let pass: each is made here, and some test must notice."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
NN = ROOT / "src" / "jdl" / "nn"
# name: the file, what stands in it, what the mistake writes instead, the tests that must fail.
MISTAKES = {
    "lstm_without_its_forget_gate": (
        "recurrent.py",
        "c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)",
        "c = c + jax.nn.sigmoid(i) * jnp.tanh(g)",
        "test_recurrent.py",
    ),
    "dropout_with_keep_and_drop_exchanged": (
        "dropout.py",
        "keep = 1 - in_float32(rate, x)",
        "keep = in_float32(rate, x)",
        "test_dropout.py",
    ),
    "dense_without_its_bias": (
        "linear.py",
        'y = y + over_features(params["bias"], y)',
        "pass",
        "test_linear.py",
    ),
    "biased_for_unbiased_running_variance": (
        "normalization.py",
        "if unbiased else",
        "if False else",
        "test_normalization.py",
    ),
    "unbiased_variance_to_normalise": (
        "normalization.py",
        "_normalise(wide, mean, var,",
        "_normalise(wide, mean, var * (x.size / (x.size - x.shape[-1])),",
        "test_normalization.py",
    ),
}
RUN = """
import sys
sys.path.insert(0, {tests!r})
import mutation, pytest
mutation.load_instead({{{target!r}: {source!r}}})
sys.exit(pytest.main([{test!r}, "-x", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-m",
                      "not slow and not gpu"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, *MISTAKES])
def test_every_mistake_is_noticed(name):
    """With no mistake made, in the same way, the tests pass."""
    file, right, wrong, test = MISTAKES[name or "dense_without_its_bias"]
    source = (NN / file).read_text(encoding="utf-8")
    assert source.count(right) == 1, f"{file} no longer says {right!r} once"
    script = RUN.format(
        tests=str(ROOT / "tests"),
        target=str(NN / file),
        source=source.replace(right, wrong) if name else source,
        test=str(ROOT / "tests" / "nn" / test),
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == (1 if name else 0), ran.stdout[-2000:] + ran.stderr[-2000:]
    if name:
        assert "AssertionError" in ran.stdout
