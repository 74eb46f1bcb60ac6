"""Programs for accelerators, read as text on a machine that has none."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.models.test_program_size import MODELS
from tests.nn import test_layer_conformance as layers
from tests.optim import test_conformance as optimizers
from tests.optim.table import ROWS

from jdl import optim, train
from jdl.engine.contract import trace_shapes
from jdl.engine.devices import lane_mesh
from jdl.engine.program import lane_segment
from jdl.engine.workload import Workload

PLATFORMS = ("cuda", "rocm", "tpu")
LANES = 3
EXAMPLES = 40
TRIALS = {"transformer": train.language_model, "sigmoid_neuron": train.regressor}


def text_for(platforms, function, *like):
    traced = function.trace(*like)
    return traced.lower(lowering_platforms=platforms).as_text()


def check_device_only(text):
    """No call of the host, and nothing in float64."""
    assert "callback" not in text
    assert not re.search(r"[x<]f64>", text)


@pytest.mark.parametrize("row", ROWS, ids=optimizers.row_name)
def test_every_optimizer_lowers_for_accelerators(row):
    run = jax.jit(jax.vmap(lambda _, numbers: optimizers.scanned(row, numbers)))
    numbers = {name: jnp.array(values, jnp.float32) for name, values in row.numbers.items()}
    check_device_only(text_for(PLATFORMS, run, jnp.arange(LANES), numbers))


@pytest.mark.parametrize("name", layers.LAYERS)
def test_every_layer_lowers_for_accelerators(name):
    make, numbers, x = layers.LAYERS[name]
    columns = {key: jnp.array(values, jnp.float32) for key, values in numbers.items()}
    run = jax.jit(jax.vmap(lambda n, seed: layers.training(make, n, x, seed)))
    check_device_only(text_for(PLATFORMS, run, columns, jnp.arange(3)))


@pytest.mark.parametrize("name", layers.PLAIN)
def test_every_layer_without_numbers_lowers_for_accelerators(name):
    layer, x = layers.PLAIN[name]
    run = jax.jit(jax.vmap(lambda seed: layers.training(lambda: layer, {}, x, seed)))
    check_device_only(text_for(PLATFORMS, run, jnp.arange(3)))


def lane_program(name, platform):
    """The text of a model's lane program, and the shapes of the lanes' state."""
    make, x = MODELS[name]
    x = jax.ShapeDtypeStruct((EXAMPLES, *x.shape[1:]), x.dtype)
    words = x.shape[1:] if name == "transformer" else ()
    kind = jnp.float32 if name == "sigmoid_neuron" else jnp.int32
    y = jax.ShapeDtypeStruct((EXAMPLES, *words), kind)
    splits = {split: (x, y) for split in ("train", "valid", "test")}
    batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((8, *a.shape[1:]), a.dtype), (x, y))
    supervised = TRIALS.get(name, train.classifier)
    work = Workload(
        make=lambda hp: supervised(make(), optim.adam(hp["lr"])),
        batch=batch,
        splits=splits,
        batch_size=8,
        report_every=4,
        reports=2,
        eval_batch_size=16,
        diverged_above=1e4,
    )
    shapes = trace_shapes(work, {"lr": np.float32(1e-3)})
    segment, arguments = lane_segment(work, shapes, lane_mesh(1), LANES, 1)
    return text_for((platform,), segment, *arguments), shapes.lane


def operands(text, operation):
    """The shapes of the first operand of each `operation`."""
    lines = [line for line in text.splitlines() if f"stablehlo.{operation}" in line]
    types = [re.search(r": \(tensor<([^>]*)>", line) for line in lines]
    found = [found[1] for found in types if found]
    return [tuple(int(n) for n in shape.split("x")[:-1]) for shape in found]


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", MODELS)
def test_every_lane_program_lowers_for_accelerators(name, platform):
    text, lane = lane_program(name, platform)
    check_device_only(text)
    leaves = jax.tree.leaves(lane)
    # The lanes' buffers are given back, each for the one that takes its place.
    assert text.count("tf.aliasing_output") == len(leaves)
    weights = {(LANES, *leaf.shape) for leaf in leaves if leaf.ndim >= 2}
    for shape in operands(text, "gather"):
        # Words are looked up in a table; nothing else may move weights lane by lane.
        assert shape not in weights or name in ("lstm_classifier", "transformer"), shape


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", ["cnn", "resnet", "vgg"])
def test_a_kernel_for_each_lane_is_a_product_on_accelerators(name, platform):
    text, _ = lane_program(name, platform)
    assert operands(text, "dot_general") and not operands(text, "convolution")
