"""Checks of numbers: boundaries, what passes unseen, and the messages."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl._checks import check_choice, check_number


@pytest.mark.parametrize(
    "interval,inside,outside",
    [
        ("[0, 1)", [0, 0.0, 0.999], [-1e-9, 1, 1.0]),
        ("(0, 1]", [1e-9, 1], [0, 1.0001]),
        ("(0, inf)", [1e-30, 1e30], [0, -1, float("inf")]),
        ("[0, inf]", [0, float("inf")], [-1e-3]),
        ("(-inf, inf)", [-5, 5], [float("inf"), -float("inf")]),
    ],
)
def test_boundaries(interval, inside, outside):
    for value in inside:
        check_number("x", value, interval)
        check_number("x", np.float32(value), interval)
    for value in [*outside, float("nan")]:
        with pytest.raises(ValueError, match="`x` must be in"):
            check_number("x", value, interval)


def test_messages():
    with pytest.raises(
        ValueError, match=r"^`rate` must be in \[0, 1\), got rate=1\.5\. Halve it\.$"
    ):
        check_number("rate", 1.5, "[0, 1)", "Halve it.")
    with pytest.raises(ValueError, match=r"got rate=\[0\.5 2\. \]"):
        check_number("rate", np.array([0.5, 2.0]), "[0, 1)")
    with pytest.raises(TypeError, match=r"`rate` must be a number in .* got rate='fast'"):
        check_number("rate", "fast", "[0, 1)")
    with pytest.raises(ValueError, match=r"`form` must be one of 'a', 'b', got form='c'\."):
        check_choice("form", "c", ["a", "b"])


def test_traced_numbers_and_schedules_pass():
    def f(x):
        check_number("x", x, "[0, 1)")
        return x

    assert jax.jit(f)(5.0) == 5.0
    check_number("x", lambda step: -1.0, "[0, 1)")
    check_number("x", jnp.bfloat16(0.5), "[0, 1)")
