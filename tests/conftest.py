"""Strict JAX for every test: rank promotion raises, keys are used once, eight CPU devices.

Most of the tests' time is the compiler's, which need not do its best: LLVM's dearest passes are
left out, except where a test takes its time and is marked slow.
"""

import atexit
import os
import shutil
import tempfile

import jax
import pytest

# What one test compiles is found by others, in all workers and in processes that tests start.
if "JDL_CACHE_DIR" not in os.environ:
    os.environ["JDL_CACHE_DIR"] = tempfile.mkdtemp(prefix="jdl-programs-")
    atexit.register(shutil.rmtree, os.environ["JDL_CACHE_DIR"], ignore_errors=True)

# Scripts, which --doctest-modules would import.
collect_ignore_glob = ["golden/*", "sweep/sweep_to_kill.py"]

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True)
def all_optimizations_for_slow_tests(request):
    slow = request.node.get_closest_marker("slow") is not None
    jax.config.update("jax_disable_most_optimizations", not slow)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def x64():
    """Runs the test in float64."""
    with jax.enable_x64(True):
        yield
