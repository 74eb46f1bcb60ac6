"""Mixed precision: which dtype stands where."""

import jax
import jax.numpy as jnp
import numpy as np

from jdl import nn


def test_every_dtype_is_the_policys():
    seen = []

    def watch(x):
        seen.append(x.dtype)
        return x

    policy = nn.Policy(parameter=jnp.float32, compute=jnp.bfloat16, output=jnp.float32)
    body = nn.chain(
        nn.dense(4), watch, nn.batch_norm(), watch, nn.dropout(0.25), nn.dense(2), watch
    )
    model = nn.with_policy(body, policy)
    x = jax.random.normal(jax.random.key(0), (8, 3))
    params, state = model.init(jax.random.key(1), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    seen.clear()
    y, after = model.apply(params, state, x, key=jax.random.key(2), train=True)
    assert seen == [jnp.bfloat16] * 3 and y.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((state, after))} == {jnp.dtype("float32")}
    gradient = jax.grad(lambda p: model.apply(p, state, x)[0].sum())(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
    # The statistics are float32's of the rounded activations: their rounding is not added to.
    rounded = jnp.dot(x.astype(jnp.bfloat16), params[0]["kernel"].astype(jnp.bfloat16))
    mean = rounded.astype(jnp.float32).mean(0)
    np.testing.assert_allclose(after[2]["mean"], 0.1 * mean, rtol=1e-5, atol=1e-7)


def test_half_precision_parameters_tokens_and_other_outputs():
    policy = nn.Policy(parameter=jnp.bfloat16, compute=jnp.float16, output=jnp.float16)
    model = nn.with_policy(nn.chain(nn.embedding(5, 4), nn.layer_norm()), policy)
    tokens = jnp.array([[1, 2]])
    params, state = model.init(jax.random.key(0), tokens)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    assert model.apply(params, state, tokens)[0].dtype == jnp.float16


def test_a_policy_of_one_dtype_changes_nothing():
    layer = nn.chain(nn.dense(4), nn.relu, nn.dropout(0.5), nn.dense(2))
    policy = nn.Policy(jnp.float32, jnp.float32, jnp.float32)
    x = jax.random.normal(jax.random.key(0), (8, 3))
    outputs = []
    for model in (layer, nn.with_policy(layer, policy)):
        params, state = model.init(jax.random.key(1), x)
        outputs.append(model.apply(params, state, x, key=jax.random.key(2), train=True)[0])
    assert (outputs[0] == outputs[1]).all()
    wrapped = nn.with_policy(nn.relu, policy)
    assert wrapped.apply({}, {}, x)[0].shape == x.shape
    assert (wrapped.name, [part.name for part in wrapped.parts]) == ("with_policy", ["relu"])
    assert [call.path for call in nn.record(wrapped, {}, {}, x)[2]] == [(), (0,)]
