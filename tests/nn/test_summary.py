"""What `record` sees, what `flops` counts, and the table that they make."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import models, nn, tree


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
    # evaluation: seven operations on vectors of 3 for factor and shift, then two on 2x3.
    assert flops == [102 + 33 + 6, 0, 102, 18 + 15, 6]
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


def row(model, x, name):
    """The only row called `name`."""
    (found,) = (row for row in nn.summary(model, x).rows if row.name == name)
    return found


def test_operations_of_whole_models_by_hand():
    image = jax.ShapeDtypeStruct((2, 28, 28, 1), "float32")
    lenet = models.cnn(10, features=(6, 16), kernel_size=5, hidden=(120, 84))
    products = 28 * 28 * 6 * 25 + 14 * 14 * 16 * 6 * 25 + 784 * 120 + 120 * 84 + 84 * 10
    biases = 28 * 28 * 6 + 14 * 14 * 16 + 120 + 84 + 10
    rectified = 28 * 28 * 6 + 14 * 14 * 16 + 120 + 84
    assert nn.summary(lenet, image).rows[0].flops == 2 * (2 * products + biases + rectified)

    # The 40.6 million products of ResNet-20, as it is usually given, are its convolutions'.
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    stages = [6 * 32**2 * 16**2, 16**2 * (16 * 32 + 5 * 32**2), 8**2 * (32 * 64 + 5 * 64**2)]
    products = 9 * (32**2 * 3 * 16 + sum(stages))
    rows = nn.summary(models.resnet(10), image).rows
    assert sum(row.flops for row in rows if row.name == "conv") == 2 * products == 81_100_800
    # Norms 2 a value and 7 a channel; sums and ReLUs 1 a value; the mean over space; dense.
    values = [7 * 32**2 * 16, 6 * 16**2 * 32, 6 * 8**2 * 64]
    norms = 2 * sum(values) + 7 * (7 * 16 + 6 * 32 + 6 * 64)
    others = sum(values) + 3 * (32**2 * 16 + 16**2 * 32 + 8**2 * 64)
    ends = 8**2 * 64 + 64 + 2 * 64 * 10 + 10
    assert rows[0].flops == 2 * products + norms + others + ends

    tokens = jax.ShapeDtypeStruct((3, 5), "int32")
    b, t, h = 3, 5, 8
    lstm = row(models.lstm_classifier(7, 2, features=h), tokens, "lstm")
    # Two products into four gates and two sums; then 3 sigmoids, 2 tanh, 3 products and a sum.
    assert lstm.flops == b * t * (2 * (2 * h * 4 * h) + 2 * 4 * h + 9 * h)
    assert lstm.parameters == 4 * h * (h + h + 1)

    model = models.transformer(7, length=5, depth=1, features=h, heads=2, hidden=11)
    attention = row(model, tokens, "multi_head_attention")
    scores = b * 2 * t * t
    products = b * t * (h * 3 * h + h * h) + 2 * scores * 4
    softmax = 6 * scores + 2 * b * t  # scale, max, minus, exp, sum, over; and a maximum twice
    assert abs(attention.flops - (2 * products + b * t * 4 * h + softmax)) <= 2 * b * t
    dense = [row for row in nn.summary(model, tokens).rows if row.name == "dense"]
    sizes = [b * t * (2 * 8 * 11 + 11), b * t * (2 * 11 * 8 + 8), b * t * 2 * 8 * 7]
    assert [row.flops for row in dense] == sizes


def test_moves_of_data_are_free():
    x = jnp.ones((4, 6))
    moves = [
        lambda x: jnp.stack([x, x]), lambda x: jnp.concatenate([x, x], 1), lambda x: jnp.pad(x, 1),
        lambda x: jnp.tile(x, (2, 3)), lambda x: x[::2, ::-1], lambda x: jnp.split(x, 2, 1),
        lambda x: x.astype(jnp.bfloat16), lambda x: jnp.where(x > 0, x, 0.0), jnp.transpose,
        lambda x: jnp.take(x, jnp.arange(2), axis=0, mode="clip"), jnp.unstack,
    ]  # fmt: skip
    for index, move in enumerate(moves):
        assert nn.flops(move, x) == 0, index


def test_summary_of_every_model_adds_up():
    image, tokens = (jax.ShapeDtypeStruct(*of) for of in (((1, 8, 8, 3), "float32"),
                                                          ((1, 6), "int32")))  # fmt: skip
    for model, x in [
        (models.mlp((5, 3), batch_norm=True, dropout=0.1), image),
        (models.cnn(3, batch_norm=True), image),
        (models.vgg(3, stages=((4,), (8,)), dropout=0.1), image),
        (models.resnet(3, depth=8, features=4), image),
        (models.lstm_classifier(7, 3, layers=2, bidirectional=True, padding=0), tokens),
        (models.transformer(7, length=6, depth=1, features=8), tokens),
        (models.vit(3, depth=1, features=8), image),
    ]:
        table = nn.summary(model, x)
        total, parts = table.rows[0], [row for row in table.rows if len(row.path) == 1]
        assert [row.path for row in parts] == [(i,) for i in range(len(model.parts))]
        for field in ("parameters", "state", "flops"):
            assert getattr(total, field) == sum(getattr(row, field) for row in parts), total.name
        assert (
            parts[-1].output
            == total.output
            == ((1, 6, 7) if total.name == "transformer" else (1, 3))
        )
        params, state = jax.eval_shape(model.init, jax.random.key(0), x)
        assert total.parameters == tree.size(params) and total.state == tree.size(state)
        out = 42 if total.name == "transformer" else 3
        assert total.bytes == 4 * (total.parameters + total.state + out)
        assert len(str(table).splitlines()) == 1 + len(table.rows)
