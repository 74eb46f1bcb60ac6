"""Defaults are promises: those of the solvers, their line searches and their directions."""

import inspect
import math

import jax
import jax.numpy as jnp
import pytest

from jdl import optim
from jdl.optim.solvers import line_search

STOP = {"gradient_tolerance": None, "value_tolerance": 0.0, "max_iterations": 1000}
DEFAULTS = {
    line_search._start: {"first_step": 1.0},
    optim.backtracking_linesearch: {
        "max_backtracking_steps": 30,
        "slope_rtol": 1e-4,
        "decrease_factor": 0.5,
    },
    optim.bfgs: {"learning_rate": None},
    optim.gauss_newton: {"learning_rate": None},
    optim.lbfgs: {"learning_rate": None, "memory_size": 10, "scale_init_precond": True},
    optim.lbfgs_direction: {"memory_size": 10, "scale_init_precond": True},
    optim.least_squares: {
        "method": "levenberg_marquardt",
        **STOP,
        "radius": 100.0,
        "linesearch": None,
    },
    optim.levenberg_marquardt: {"radius": 100.0},
    optim.line_search_descent: {"rates": (0.1, 0.5, 1.0, 5.0, 10.0), "allow_increase": False},
    optim.minimize: {"method": "lbfgs", **STOP, "linesearch": None},
    optim.newton: {"learning_rate": None, "damping": 0.0},
    optim.newton_cg: {"learning_rate": None, "damping": 0.0, "max_cg_steps": None},
    optim.newton_cg_direction: {"damping": 0.0, "max_cg_steps": None},
    optim.newton_direction: {"damping": 0.0},
    optim.scale_by_linesearch: {"increase_factor": 1.5, "max_learning_rate": math.inf},
    optim.search_along: {"first_step": 1.0},
    optim.zoom_linesearch: {"max_linesearch_steps": 20, "slope_rtol": 1e-4, "curv_rtol": 0.9},
}
SEARCHES = (optim.bfgs, optim.gauss_newton, optim.lbfgs, optim.newton, optim.newton_cg)


@pytest.mark.parametrize("function", DEFAULTS, ids=lambda f: f.__name__)
def test_defaults(function):
    found = {
        p.name: p.default
        for p in inspect.signature(function).parameters.values()
        if p.default is not p.empty
    }
    if function in SEARCHES:
        assert found.pop("linesearch") is line_search.STRONG_WOLFE
    assert found == DEFAULTS[function]


def test_the_search_that_solvers_use_accepts_by_the_default_numbers():
    """At 1 - 1e-4 t sufficient decrease begins, at 0.9 of the slope flatness, as by default."""
    start = line_search.STRONG_WOLFE.start(0.0, -1.0)
    points = {
        (-1.01e-4, 0.1): True,
        (-0.99e-4, 0.1): False,
        (-0.5, -0.899): True,
        (-0.5, -0.901): False,
    }
    value, slope = jnp.array(list(points)).T
    advance = jax.jit(jax.vmap(lambda v, s: line_search.STRONG_WOLFE.advance(start, v, s).stage))
    assert (advance(value, slope) == line_search.ACCEPTED).tolist() == list(points.values())
