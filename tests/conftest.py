"""Strict JAX for every test: rank promotion raises, keys are used once, eight CPU devices."""

import jax
import pytest

# Scripts, which --doctest-modules would import.
collect_ignore_glob = ["golden/*", "sweep/sweep_to_kill.py"]

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture
def x64():
    """Runs the test in float64."""
    with jax.enable_x64(True):
        yield
