"""Norms: torch's recorded values over 20 steps, hand-worked cases."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "nn.npz")


def recorded(name):
    return {f.split("/")[1]: GOLDEN[f] for f in GOLDEN.files if f.startswith(f"{name}/")}


@pytest.mark.parametrize(
    ("name", "momentum", "eps"),
    [
        ("batch_norm_1d", 0.23, 0.013),
        ("batch_norm_pairs", 0.1, 1e-5),
        ("batch_norm_2d", 0.37, 0.02),
    ],
)
def test_batch_norm_follows_torch_for_twenty_steps(x64, name, momentum, eps):
    golden = recorded(name)
    layer = nn.batch_norm(momentum=momentum, eps=eps)
    _, state = layer.init(jax.random.key(0), golden["x"][0])
    params = {"scale": jnp.asarray(golden["scale"]), "bias": jnp.asarray(golden["bias"])}

    @jax.jit
    def steps(params, state, xs, fixed):
        def step(state, x):
            y, state = layer.apply(params, state, x, train=True)
            evaluated, same = layer.apply(params, state, fixed)
            return same, {"train": y, "eval": evaluated, **state}

        return jax.lax.scan(step, state, xs)[1]

    seen = steps(params, state, golden["x"], golden["fixed"])
    for field in ("train", "eval", "mean", "var"):
        np.testing.assert_allclose(seen[field], golden[field], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "momentum", "eps"), [("batch_norm_1d", 0.23, 0.013), ("batch_norm_2d", 0.37, 0.02)]
)
def test_batch_norm_gradients_are_torchs(x64, name, momentum, eps):
    golden = recorded(name)
    x = jnp.asarray(golden["x"][-1])
    layer = nn.batch_norm(momentum=momentum, eps=eps)
    _, state = layer.init(jax.random.key(0), x)
    params = {"scale": jnp.asarray(golden["scale"]), "bias": jnp.asarray(golden["bias"])}

    @jax.jit
    def gradients(params, x, cotangent):
        return jax.vjp(lambda p, x: layer.apply(p, state, x, train=True)[0], params, x)[1](
            cotangent
        )

    grads, dx = gradients(params, x, golden["cotangent"])
    np.testing.assert_allclose(dx, golden["dx"], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(grads["scale"], golden["dscale"], rtol=1e-9)
    np.testing.assert_allclose(grads["bias"], golden["dbias"], rtol=1e-9)


def test_batch_norm_in_float32_stays_within_a_millionth():
    golden = recorded("batch_norm_2d")
    layer = nn.batch_norm(momentum=0.37, eps=0.02)
    xs = jnp.asarray(golden["x"], jnp.float32)
    _, state = layer.init(jax.random.key(0), xs[0])
    params = {name: jnp.asarray(golden[name], jnp.float32) for name in ("scale", "bias")}

    def step(state, x):
        y, state = layer.apply(params, state, x, train=True)
        return state, (y, state)

    _, (ys, states) = jax.lax.scan(step, state, xs)
    scale = np.abs(golden["train"]).max()
    np.testing.assert_allclose(ys / scale, golden["train"] / scale, atol=1e-6)
    np.testing.assert_allclose(states["mean"], golden["mean"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(states["var"], golden["var"], rtol=1e-6)


def test_batch_norm_variance_does_not_cancel_far_from_zero():
    x = jax.random.normal(jax.random.key(0), (64, 3)) + 3e3
    layer = nn.batch_norm()
    params, state = layer.init(jax.random.key(0), x)
    y, _ = layer.apply(params, state, x, train=True)
    np.testing.assert_allclose(jnp.std(y, 0), 1, rtol=1e-3)


def test_batch_norm_starts_at_zero_and_one_and_init_sees_no_data():
    x = 5 + jax.random.normal(jax.random.key(0), (8, 3))
    params, state = nn.batch_norm().init(jax.random.key(0), x)
    assert jax.tree.map(lambda leaf: leaf.tolist(), (params, state)) == (
        {"scale": [1, 1, 1], "bias": [0, 0, 0]},
        {"mean": [0, 0, 0], "var": [1, 1, 1]},
    )


def test_batch_norm_applied_twice_updates_twice():
    layer = nn.batch_norm(momentum=0.25)
    x = jnp.array([[1.0], [3.0]])
    params, state = layer.init(jax.random.key(0), x)
    _, state = layer.apply(params, state, x, train=True)
    _, state = layer.apply(params, state, x, train=True)
    # The mean is 2 and the unbiased variance 2: 0.25*2 = 0.5, then 0.75*0.5 + 0.5.
    assert state["mean"].tolist() == [0.875]
    np.testing.assert_allclose(state["var"], 0.75 * (0.75 + 0.5) + 0.5, rtol=1e-6)


def test_batch_norm_biased_running_variance_and_frozen_statistics():
    x = jnp.array([[1.0], [3.0]])
    layer = nn.batch_norm(momentum=0.25, unbiased=False)
    params, state = layer.init(jax.random.key(0), x)
    assert layer.apply(params, state, x, train=True)[1]["var"].tolist() == [1.0]
    layer = nn.batch_norm(momentum=0.0)
    _, after = layer.apply(params, state, x, train=True)
    assert (after["mean"].tolist(), after["var"].tolist()) == ([0.0], [1.0])


def test_batch_norm_without_scale_or_bias():
    x = jnp.array([[1.0], [3.0]])
    layer = nn.batch_norm(eps=0.0, use_scale=False, use_bias=False)
    params, state = layer.init(jax.random.key(0), x)
    assert params == {}
    np.testing.assert_allclose(layer.apply(params, state, x, train=True)[0], [[-1], [1]], rtol=1e-6)


def test_batch_norm_over_a_named_axis_is_that_of_the_whole_batch(x64):
    x = jax.random.normal(jax.random.key(1), (4, 6, 3)) * 2 + jnp.arange(4.0)[:, None, None]
    layer = nn.batch_norm(momentum=0.3, axis_name="devices")
    params, state = layer.init(jax.random.key(0), x[0])
    ys, states = jax.vmap(
        lambda part: layer.apply(params, state, part, train=True), axis_name="devices"
    )(x)
    alone = nn.batch_norm(momentum=0.3)
    y, after = alone.apply(params, state, x.reshape(24, 3), train=True)
    np.testing.assert_allclose(ys.reshape(24, 3), y, rtol=1e-11, atol=1e-12)
    for name in ("mean", "var"):
        for lane in range(4):
            np.testing.assert_allclose(states[name][lane], after[name], rtol=1e-11)


def test_batch_norm_of_one_value_per_feature_is_an_error_in_training_only():
    layer = nn.batch_norm()
    x = jnp.ones((1, 3))
    params, state = layer.init(jax.random.key(0), x)
    layer.apply(params, state, x)
    with pytest.raises(ValueError, match=r"more than one value per feature.*\(1, 3\)"):
        layer.apply(params, state, x, train=True)
    layer.apply(params, state, jnp.ones((1, 2, 3)), train=True)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("layer_norm", nn.layer_norm(eps=0.07)),
        ("group_norm", nn.group_norm(3, eps=0.03)),
        ("rms_norm", nn.rms_norm(eps=0.05)),
    ],
)
def test_stateless_norms_and_their_gradients_are_torchs(x64, name, layer):
    x = jnp.asarray(GOLDEN["norms/x"])
    params, state = layer.init(jax.random.key(0), x)
    assert state == {}
    wanted = {key: GOLDEN[f"norms/{key}"] for key in params}
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, wanted)

    @jax.jit
    def run(params, x, cotangent):
        y, pull = jax.vjp(lambda p, x: layer.apply(p, {}, x)[0], params, x)
        return y, pull(cotangent)

    y, (grads, dx) = run(wanted, x, GOLDEN["norms/cotangent"])
    np.testing.assert_allclose(y, GOLDEN[f"{name}/y"], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(dx, GOLDEN[f"{name}/dx"], rtol=1e-9, atol=1e-11)
    for key, gradient in grads.items():
        np.testing.assert_allclose(gradient, GOLDEN[f"{name}/d{key}"], rtol=1e-9)
    bare, _ = nn.layer_norm(eps=0.07, use_scale=False, use_bias=False), None
    if name == "layer_norm":
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        plain = bare.apply(bare.init(jax.random.key(0), x)[0], {}, x)[0]
        np.testing.assert_allclose(plain, (x - mean) / jnp.sqrt(var + 0.07), rtol=1e-11, atol=1e-12)


def test_norms_start_as_the_identity_in_scale_and_bias():
    x = jnp.ones((2, 4))
    assert nn.group_norm(2, use_bias=False).init(jax.random.key(0), x)[0].keys() == {"scale"}
    assert nn.rms_norm(use_scale=False).init(jax.random.key(0), x)[0] == {}
    params, _ = nn.layer_norm().init(jax.random.key(0), x)
    assert (params["scale"].tolist(), params["bias"].tolist()) == ([1] * 4, [0] * 4)


def test_norm_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"`momentum` must be in \[0, 1\], got momentum=1\.5"):
        nn.batch_norm(momentum=1.5)
    for constructor in (nn.batch_norm, nn.layer_norm, nn.rms_norm):
        with pytest.raises(ValueError, match=r"`eps` must be in \[0, inf\), got eps=-1"):
            constructor(eps=-1.0)
    with pytest.raises(ValueError, match=r"`eps` must be in \[0, inf\), got eps=-1"):
        nn.group_norm(2, eps=-1.0)
    with pytest.raises(ValueError, match="`groups` must divide the number of features 6, got gro"):
        nn.group_norm(4).init(jax.random.key(0), jnp.ones((2, 6)))
    with pytest.raises(ValueError, match="`groups` must be an integer of at least 1, got groups=0"):
        nn.group_norm(0)


@pytest.mark.parametrize("train", [True, False])
def test_half_precision_rounds_the_result_alone(train):
    """Statistics, scale and bias in float32: only what comes out is rounded."""
    x = (jax.random.normal(jax.random.key(0), (5, 3, 6)) * 3 + 7).astype(jnp.bfloat16)
    layers = [nn.batch_norm(), nn.layer_norm(), nn.group_norm(3), nn.rms_norm()]

    @jax.jit
    def run(x):
        pairs = []
        for index, layer in enumerate(layers):
            params, state = layer.init(jax.random.key(1), x)
            params = jax.tree.map(lambda p, i=index: p + 0.3 * (i + 1), params)
            low, _ = layer.apply(params, state, x, train=train)
            wide, _ = layer.apply(params, state, x.astype(jnp.float32), train=train)
            pairs.append((low, wide.astype(jnp.bfloat16)))
        return pairs

    for low, wide in run(x):
        assert low.dtype == jnp.bfloat16
        # The compiler may fuse otherwise: one unit in the last place, seldom.
        np.testing.assert_allclose(low.astype(jnp.float32), wide.astype(jnp.float32), rtol=2**-7)
        assert (low == wide).mean() > 0.99


def test_synchronised_batch_norm_over_devices_is_that_of_the_whole_batch(x64):
    """Output, statistics and every gradient, on two devices and on one."""
    rng = np.random.default_rng(3)
    x, cotangent = rng.normal(size=(2, 8, 3)) * [[[1.0, 2.0, 0.5]]] + 1
    alone, split = nn.batch_norm(momentum=0.3), nn.batch_norm(momentum=0.3, axis_name="batch")
    _, state = alone.init(jax.random.key(0), x)
    params = {"scale": jnp.array([1.5, -0.5, 2.0]), "bias": jnp.array([0.1, 0.2, 0.3])}

    def run(layer, params, state, x, cotangent):
        y, back, after = jax.vjp(
            lambda p, x: layer.apply(p, state, x, train=True), params, x, has_aux=True
        )
        grads, dx = back(cotangent)
        return y, dx, grads, after

    def on_devices(params, state, x, cotangent):
        return run(split, params, state, x, cotangent)

    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    part, none = jax.P("batch"), jax.P()
    sharded = jax.shard_map(
        on_devices, mesh=mesh, in_specs=(none, none, part, part), out_specs=(part, part, none, none)
    )
    got = jax.device_get(jax.jit(sharded)(params, state, x, cotangent))
    expected = jax.device_get(jax.jit(lambda *a: run(alone, *a))(params, state, x, cotangent))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
