"""Optimizers and layers are closures, which cloudpickle carries to another process."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# In a process of its own: the tests' type checks wrap every function in what cannot be pickled.
ROUND_TRIPS = """
import cloudpickle, jax, jax.numpy as jnp, numpy as np
from jdl import nn, optim
from tests.nn.test_layer_conformance import LAYERS, listed, PLAIN
from tests.optim.table import ROWS

def again(value):
    return cloudpickle.loads(cloudpickle.dumps(value))

params = ({"kernel": jnp.ones((2, 2))}, {"bias": jnp.ones(2), "gain": jnp.ones(())})
for row in ROWS:
    made = row.make(**{name: values[1] for name, values in row.numbers.items()}, **row.fixed)
    back = again(made)
    assert isinstance(back, optim.Optimizer), row
    assert jax.eval_shape(back.init, params) == jax.eval_shape(made.init, params), row
for name in (*LAYERS, *PLAIN):
    layer, x = listed(name)
    back = again(layer)
    assert isinstance(back, nn.Layer) and back.name == layer.name, name
    init = [jax.eval_shape(one.init, jax.random.key(0), x) for one in (layer, back)]
    assert init[0] == init[1], name
x = jnp.array([[1.0, -2.0]])
layer = again(nn.chain(nn.dense(3), nn.gelu))
params, state = layer.init(jax.random.key(0), x)
y = layer.apply(params, state, x)[0]
np.testing.assert_allclose(y, nn.gelu(x @ params[0]["kernel"]), rtol=1e-6)
optimizer = again(optim.sgd(optim.cosine_decay_schedule(0.5, 10)))
np.testing.assert_allclose(optimizer.update(x, optimizer.init(x), x)[0], -0.5 * x)
print("all came back")
"""


def test_optimizers_and_layers_come_back_as_they_were():
    pytest.importorskip("cloudpickle")
    path = ":".join(map(str, (ROOT / "src", ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", ROUND_TRIPS],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"},
    )
    assert done.stdout == "all came back\n", done.stderr
