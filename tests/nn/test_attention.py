"""Attention: torch's recorded values with each mask; positions by their definitions."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "nn.npz")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["plain", "causal", "padded", "both"])
def test_outputs_are_torchs(x64, name, dtype):
    close = {"rtol": 1e-9, "atol": 1e-11} if dtype == "float64" else {"rtol": 1e-5, "atol": 2e-6}
    layer = nn.multi_head_attention(2, causal=name in ("causal", "both"))
    x, lengths = jnp.asarray(GOLDEN["attention/x"], dtype), GOLDEN["attention/lengths"]
    mask = jnp.arange(5)[None, :] < lengths[:, None]
    drawn, state = jax.eval_shape(layer.init, jax.random.key(0), x)
    apply = jax.jit(layer.apply)
    params = {
        part: {f: jnp.asarray(GOLDEN[f"attention/{part}/{f}"], dtype) for f in ("kernel", "bias")}
        for part in ("qkv", "out")
    }
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, params)
    if name in ("padded", "both"):
        y, _ = apply(params, state, nn.Masked(x, mask))
        assert (y.mask == mask).all()
        real = np.asarray(mask)
        np.testing.assert_allclose(y.values[real], GOLDEN[f"attention/{name}"][real], **close)
    else:
        y, _ = apply(params, state, x)
        np.testing.assert_allclose(y, GOLDEN[f"attention/{name}"], **close)


def test_a_causal_step_sees_nothing_later():
    layer = nn.multi_head_attention(2, causal=True, rotary_base=100.0)
    x = jax.random.normal(jax.random.key(1), (2, 6, 8))
    params, state = jax.jit(layer.init)(jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda x: layer.apply(params, state, x)[0][0, 2].sum()))(x)[0]
    assert (jnp.abs(gradient).sum(-1) > 0).tolist() == [True] * 3 + [False] * 3


def test_width_biases_and_initialisers():
    layer = nn.multi_head_attention(
        3,
        features=60,
        kernel_init=nn.initializer.glorot_normal,
        out_init=nn.initializer.constant(0.5),
        bias_init=nn.initializer.constant(0.25),
    )
    x = jax.ShapeDtypeStruct((2, 5, 140), jnp.float32)
    params, state = jax.jit(lambda key: layer.init(key, x))(jax.random.key(0))
    assert state == {}
    assert jax.tree.map(jnp.shape, params) == {
        "qkv": {"kernel": (140, 180), "bias": (180,)},
        "out": {"kernel": (60, 140), "bias": (140,)},
    }
    for block in jnp.split(params["qkv"]["kernel"], 3, axis=1):
        np.testing.assert_allclose(jnp.var(block), 2 / 200, rtol=5 * np.sqrt(2 / 8400))
    assert (params["out"]["kernel"] == 0.5).all()
    assert (params["qkv"]["bias"] == 0.25).all() and (params["out"]["bias"] == 0.25).all()
    bare = nn.multi_head_attention(2, use_bias=False, kernel_init=nn.initializer.constant(0.1))
    params, _ = bare.init(jax.random.key(0), jax.ShapeDtypeStruct((2, 5, 4), jnp.float32))
    assert jax.tree.map(jnp.shape, params) == {
        "qkv": {"kernel": (4, 12)},
        "out": {"kernel": (4, 4)},
    }
    assert (params["out"]["kernel"] == jnp.float32(0.1)).all()


def test_rotary_products_depend_on_the_distance_alone(x64):
    from jdl.nn import attention

    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 6))
    time = 9
    both = jnp.broadcast_to(jnp.concatenate([q, k], 2), (1, time, 2, 6))
    turned = np.asarray(jax.jit(attention._rotated)(both, 50.0))[0]
    turned_q, turned_k = turned[:, 0], turned[:, 1]
    scores = turned_q @ turned_k.T
    for distance in range(-4, 5):
        diagonal = np.diagonal(scores, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-10)
    # The angle of pair i at position t is t / base**(i/3), which turns (x_i, x_{i+3}).
    t, i = 4, 1
    angle = t * 50.0 ** (-i / 3)
    a, b = q[0, 0, 0, i], q[0, 0, 0, i + 3]
    np.testing.assert_allclose(turned_q[t, i], a * np.cos(angle) - b * np.sin(angle), rtol=1e-10)
    np.testing.assert_allclose(
        turned_q[t, i + 3], a * np.sin(angle) + b * np.cos(angle), rtol=1e-10
    )


def test_rotary_attention_by_a_loop(x64):
    """Three steps, one head of size 2, queries that are x and values 3 x: everything by hand."""
    layer = nn.multi_head_attention(1, rotary_base=7.0, use_bias=False)
    eye, key_kernel = np.eye(2), np.array([[2.0, 0.5], [-1.0, 3.0]])
    params = {
        "qkv": {"kernel": jnp.concatenate([eye, key_kernel, 3 * eye], 1)},
        "out": {"kernel": jnp.asarray(eye)},
    }
    x = np.array([[0.3, -1.0], [0.8, 0.5], [-0.2, 0.9]])

    def turned(v, t):
        return np.array([v[0] * np.cos(t) - v[1] * np.sin(t), v[0] * np.sin(t) + v[1] * np.cos(t)])

    expected = []
    for t in range(3):
        scores = np.array(
            [turned(x[t], t) @ turned(x[s] @ key_kernel, s) for s in range(3)]
        ) / np.sqrt(2)
        weights = np.exp(scores) / np.exp(scores).sum()
        expected.append(weights @ (3 * x))
    y, _ = jax.jit(layer.apply)(params, {}, jnp.asarray(x)[None])
    np.testing.assert_allclose(y[0], expected, rtol=1e-10)


def test_sinusoids_are_the_papers(x64):
    x = jax.random.normal(jax.random.key(0), (2, 5, 6))
    waves = np.zeros((5, 6))
    for t in range(5):
        for i in range(3):
            waves[t, 2 * i] = np.sin(t / 10000 ** (2 * i / 6))
            waves[t, 2 * i + 1] = np.cos(t / 10000 ** (2 * i / 6))
    np.testing.assert_allclose(nn.sinusoidal_positions(x), x + waves[None], rtol=1e-12, atol=1e-13)
    mask = jnp.ones((2, 5), bool)
    y = nn.sinusoidal_positions(nn.Masked(x, mask))
    np.testing.assert_allclose(y.values, x + waves[None], rtol=1e-12, atol=1e-13)
    assert (y.mask == mask).all()
    with pytest.raises(ValueError, match="even number of features, got 5"):
        nn.sinusoidal_positions(x[..., :5])


def test_learned_positions_add_one_row_per_step():
    layer = nn.learned_positions(7)
    x = jax.random.normal(jax.random.key(0), (2, 5, 600))
    params, state = layer.init(jax.random.key(1), x)
    table = params["embedding"]
    assert table.shape == (7, 600)
    np.testing.assert_allclose(jnp.std(table), 0.02, rtol=5 / np.sqrt(2 * 4200))
    y, _ = layer.apply(params, state, x)
    assert (y == x + table[None, :5]).all()
    masked, _ = layer.apply(params, state, nn.Masked(x, jnp.ones((2, 5), bool)))
    assert (masked.values == y).all() and masked.mask.all()
    with pytest.raises(ValueError, match=r"learned_positions\(7\) was given sequences of 8 steps"):
        layer.apply(params, state, jnp.zeros((1, 8, 600)))


def test_attention_errors_name_the_argument():
    x = jax.ShapeDtypeStruct((2, 5, 6), jnp.float32)
    with pytest.raises(
        ValueError, match="`heads` must divide the number of features 6, got heads=4"
    ):
        nn.multi_head_attention(4).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"`rotary_base` must be in \(1, inf\), got rotary_base=1"):
        nn.multi_head_attention(2, rotary_base=1.0)
    layer = nn.multi_head_attention(2, rotary_base=10.0)
    with pytest.raises(ValueError, match="even size per head, got 3"):
        layer.apply(layer.init(jax.random.key(0), x)[0], {}, jnp.zeros((2, 5, 6)))
