"""How trials begin: what is drawn, from which numbers, by a program that groups share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from tests.engine.test_contract import workload

from jdl import models, optim, train
from jdl.data import Dataset
from jdl.engine import starting
from jdl.engine.contract import trace_shapes
from jdl.engine.devices import lane_mesh
from jdl.engine.keys import trial_keys, trial_words
from jdl.engine.program import Assignment, compile_lanes


def beginning(init, names=("lr", "scale")):
    """The shapes of a trial that begins with `init(numbers, key)`."""

    def make(numbers):
        return train.Trial(
            lambda key, batch: init(numbers, key),
            lambda state, batch, key: (state, {"loss": jnp.mean(batch[0])}),
            lambda state, batch: {"loss": jnp.mean(batch[0])},
        )

    work = workload(make)
    return work, trace_shapes(work, {name: np.float32(0) for name in names})


def test_only_what_key_or_numbers_decide_is_drawn():
    def init(numbers, key):
        a, b = jax.random.split(key)
        return {
            "bias": jnp.zeros(3),
            "count": jnp.int32(0),
            "kernel": numbers["scale"] * jax.random.normal(a, (2, 3)),
            "moments": [jnp.zeros((2, 3)), jnp.full(3, 0.5)],
            "noise": jax.random.normal(b, (2,)),
        }

    _, shapes = beginning(init)
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(shapes.lane.state)]
    assert [paths[place] for place in shapes.drawn.places] == ["['kernel']", "['noise']"]
    assert shapes.drawn.numbers == ("scale",)
    draw = core.jaxpr_as_fun(shapes.drawn.program)
    with jax.debug_key_reuse(False):
        key = trial_keys(np.uint32(0), np.uint32(3)).init
        kernel, noise = draw(jnp.float32(2), key)
        a, b = jax.random.split(key)
        np.testing.assert_allclose(kernel, 2 * jax.random.normal(a, (2, 3)), rtol=1e-6)
        np.testing.assert_allclose(noise, jax.random.normal(b, (2,)), rtol=1e-6)


def classifiers(*optimizers):
    x, y = np.zeros((12, 5), np.float32), np.zeros(12, np.int32)
    for optimizer in optimizers:

        def make(numbers, optimizer=optimizer):
            return train.classifier(models.mlp((4, 3)), optimizer(numbers["lr"]))

        work = workload(make, Dataset((x, y), (x, y), None))
        yield work, trace_shapes(work, {"lr": np.float32(0)})


def test_groups_of_one_model_share_the_program_that_draws_its_weights():
    """Adam and SGD keep other states, and the weights of both are drawn by one program."""
    made = [*classifiers(optim.sgd, optim.adam)]
    one, other = (shapes.drawn for _, shapes in made)
    assert one.told == other.told and one.numbers == other.numbers == ()
    assert len(one.places) == len(other.places) == 2  # the kernels: biases are zeros
    starting._alive.clear()
    programs = [compile_lanes(work, shapes, lane_mesh(1), 2, 1) for work, shapes in made]
    assert programs[0].refill.draw is programs[1].refill.draw
    (wider,) = classifiers(lambda rate: optim.sgd(rate, 0.9))
    assert compile_lanes(*wider, lane_mesh(1), 3, 1).refill.draw is not programs[0].refill.draw


@pytest.mark.parametrize("drawn", [False, True])
def test_fresh_lanes_begin_and_others_stay(drawn):
    def init(numbers, key):
        first = jax.random.normal(key, (2,)) if drawn else jnp.full(2, 7.0)
        return {"first": first, "rest": jnp.full(3, 0.5), "rate": 2 * numbers["lr"]}

    work, shapes = beginning(init, names=("lr",))
    program = compile_lanes(work, shapes, lane_mesh(2), 2, 1)
    words = trial_words(5, np.array([8, 9, 10, 11], np.uint32))
    rates = np.array([1, 2, 3, 4], np.float32)

    def begin(lanes, rates, fresh):
        flags = np.array(fresh, bool)
        assignment = program.place(Assignment({"lr": rates}, words, flags, flags))
        return jax.tree.map(np.array, program.refill(lanes, assignment))

    lanes = begin(program.empty(), rates, [1, 0, 1, 1])
    assert lanes.step.tolist() == [0] * 4 and lanes.diverged.tolist() == [-1, -2, -1, -1]
    assert lanes.state["rate"].tolist() == [2, 0, 6, 8]
    lanes = begin(program.place(lanes), 10 * rates, [0, 1, 0, 1])
    assert lanes.state["rate"].tolist() == [2, 40, 6, 80]
    np.testing.assert_array_equal(lanes.state["rest"], np.full((4, 3), 0.5))
    with jax.debug_key_reuse(False):
        keys = [trial_keys(np.uint32(5), np.uint32(stream)).init for stream in (8, 9, 10, 11)]
        expected = [jax.random.normal(key, (2,)) if drawn else [7.0, 7.0] for key in keys]
    np.testing.assert_allclose(lanes.state["first"], expected, rtol=1e-6)
