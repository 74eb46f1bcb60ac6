"""What `record` sees, what `flops` counts, and the table that they make."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn


def test_record_sees_every_part_and_changes_nothing():
    model = nn.chain(
        nn.dense(4),
        nn.residual(nn.batch_norm(), nn.dropout(0.5), shortcut=nn.relu),
        nn.with_policy(nn.parallel(nn.relu, jnp.negative), nn.Policy()),
    )
    x = jax.random.normal(jax.random.key(0), (6, 3))
    params, state = model.init(jax.random.key(1), x)
    wanted = model.apply(params, state, x, key=jax.random.key(2), train=True)
    y, after, calls = nn.record(model, params, state, x, key=jax.random.key(2), train=True)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), (y, after), wanted))
    assert [(call.path, call.layer.name) for call in calls] == [
        ((), "chain"),
        ((0,), "dense"),
        ((1,), "residual"),
        ((1, 0), "body"),
        ((1, 0, 0), "batch_norm"),
        ((1, 0, 1), "dropout"),
        ((1, 1), "relu"),
        ((2,), "with_policy"),
        ((2, 0), "parallel"),
        ((2, 0, 0), "relu"),
        ((2, 0, 1), "negative"),
    ]
    by_path = {call.path: call for call in calls}
    assert by_path[()].x is x and by_path[()].y is y
    assert by_path[(0,)].params is params[0]
    np.testing.assert_allclose(by_path[(0,)].y, x @ params[0]["kernel"], rtol=1e-5)
    assert by_path[(1, 0, 0)].state is state[1][0][0]
    assert (by_path[(1, 1)].x == by_path[(0,)].y).all()
    assert by_path[(2, 0, 1)].y.dtype == jnp.bfloat16


def test_summary_by_hand():
    model = nn.chain(nn.flatten, nn.dense(3), nn.batch_norm(), nn.relu, name="small")
    table = nn.summary(model, np.zeros((2, 4, 2), np.float32))
    assert [row[:5] for row in table.rows] == [
        ((), "small", (2, 3), 33, 6),
        ((0,), "flatten", (2, 8), 0, 0),
        ((1,), "dense", (2, 3), 27, 0),
        ((2,), "batch_norm", (2, 3), 6, 6),
        ((3,), "relu", (2, 3), 0, 0),
    ]
    assert [row.bytes for row in table.rows] == [180, 64, 132, 72, 24]
    flops = [row.flops for row in table.rows]
    # Dense: 2*2*8*3 in the product, 2*3 for the bias; ReLU one each. Batch norm in
    # evaluation: 3 each for var + eps, its root and times the scale, then 3 of 2x3.
    assert flops == [102 + 27 + 6, 0, 102, 9 + 18, 6]
    assert str(table).splitlines()[0].split() == [
        "layer", "output", "parameters", "state", "FLOPs", "bytes",
    ]  # fmt: skip
    assert str(table).splitlines()[3].split() == ["dense", "(2,", "3)", "27", "0", "102", "132"]
    assert str(table).splitlines()[3].startswith("  dense")


def test_flops_of_products_convolutions_and_reductions():
    a, b = jnp.ones((7, 2, 3)), jnp.ones((7, 3, 5))
    assert nn.flops(jnp.matmul, a, b) == 2 * 7 * 2 * 3 * 5
    image, kernel = jnp.ones((2, 8, 8, 6)), jnp.ones((3, 3, 2, 4))

    def convolution(image, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            image, kernel, (1, 1), "VALID", dimension_numbers=layout, feature_group_count=2 + 1
        )

    kernel = jnp.ones((3, 3, 2, 9))
    assert nn.flops(convolution, image, kernel) == 2 * (2 * 6 * 6 * 9) * (3 * 3 * 2)
    assert nn.flops(jnp.sum, jnp.ones((4, 5))) == 20
    assert nn.flops(lambda x: x.T.reshape(-1)[:3], jnp.ones((4, 5))) == 0
    assert nn.flops(lambda x: x > 0, jnp.ones((4, 5))) == 0


def test_flops_of_loops_and_branches():
    x = jnp.ones(10)

    def scanned(x):
        return jax.lax.scan(lambda c, _: (c * 2.0, None), x, None, length=7)[0]

    def branched(x):
        return jax.lax.cond(x[0] > 0, lambda x: x * 2.0, lambda x: jnp.sin(x) * 2.0 + 1.0, x)

    assert nn.flops(scanned, x) == 70
    assert nn.flops(jax.jit(scanned), x) == 70
    assert nn.flops(branched, x) == 30


@pytest.mark.parametrize("layer", [nn.lstm(5), nn.gru(4, reverse=True)])
def test_summary_of_padded_sequences(layer):
    x = nn.Masked(jnp.zeros((2, 6, 3)), jnp.ones((2, 6), bool))
    rows = nn.summary(nn.chain(layer, nn.last_step), x).rows
    width = rows[1].output.values[-1]
    assert rows[1].output == nn.Masked((2, 6, width), (2, 6))
    assert rows[2].output == (2, width)
    # At least the two products: of all inputs at once, and of h at each of 6 steps.
    gates = {5: 4, 4: 3}[width] * width
    assert rows[1].flops > 2 * 12 * 3 * gates + 6 * 2 * 2 * width * gates
