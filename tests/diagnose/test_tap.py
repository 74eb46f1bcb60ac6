"""Taps: what every layer gives, of any model, and the gradient that arrives there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import models, nn
from jdl.diagnose import tap


def test_gives_what_record_gives():
    model = models.cnn(3, features=(4,), hidden=(5,), activation=nn.tanh, batch_norm=True)
    x = jax.random.normal(jax.random.key(1), (6, 8, 8, 2))
    params, state = model.init(jax.random.key(0), x)
    y, sites = tap(lambda p, x: model.apply(p, state, x)[0], params, x)
    out, _, calls = nn.record(model, params, state, x)
    np.testing.assert_allclose(y, out, rtol=1e-6)
    tanhs = [call.y for call in calls if call.layer.name == "tanh"]
    seen = [site for site in sites if site.kind == "tanh"]
    assert len(tanhs) == len(seen) == 2
    for site, value in zip(seen, tanhs):
        np.testing.assert_allclose(site.y, value, rtol=1e-6)
    assert [s.name for s in sites] == ["0 conv", "1 tanh", "2 dense", "3 tanh", "4 dense"]


def test_a_nudge_gives_the_gradient_that_arrives():
    w = jnp.array([[0.5, -0.3], [0.2, 0.7], [-0.4, 0.1]])
    v = jnp.array([[1.5], [-0.8]])
    x = jnp.array([[1.0, 2.0, -1.0], [0.3, -0.2, 0.9]])

    def loss(x):
        return jnp.sum(jnp.tanh(x @ w) @ v) ** 2

    _, sites = tap(loss, x)
    assert [site.kind for site in sites] == ["linear", "tanh", "linear"]
    zeros = [jnp.zeros_like(site.y) for site in sites]
    first, second, third = jax.grad(lambda n: tap(loss, x, nudges=n)[0])(zeros)
    hidden = np.tanh(np.asarray(x) @ np.asarray(w))
    outer = 2 * (hidden @ np.asarray(v)).sum()
    np.testing.assert_allclose(third, np.full((2, 1), outer), rtol=1e-6)
    np.testing.assert_allclose(second, outer * np.ones((2, 1)) @ np.asarray(v).T, rtol=1e-6)
    np.testing.assert_allclose(first, np.asarray(second) * (1 - hidden**2), rtol=1e-5)


@pytest.mark.parametrize("function", [nn.gelu, nn.silu, nn.softplus, nn.elu])
def test_the_gate_inside_an_activation_is_no_site(function):
    _, sites = tap(lambda x: function(x), jnp.ones((3, 4)))
    assert sites == []


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (nn.relu, "relu"),
        (lambda x: jnp.maximum(x, 0), "relu"),
        (nn.tanh, "tanh"),
        (nn.sigmoid, "sigmoid"),
        (jax.jit(lambda x: jax.jit(jnp.tanh)(x)), "tanh"),
    ],
)
def test_kinds(function, kind):
    x = jnp.linspace(-2, 2, 12).reshape(3, 4)
    y, (site,) = tap(function, x)
    assert site.kind == kind
    np.testing.assert_array_equal(site.y, function(x))
    np.testing.assert_array_equal(y, function(x))


def test_works_in_lanes():
    model = nn.chain(nn.dense(4), nn.relu, nn.dense(2))
    x = jnp.ones((5, 3))
    params = jax.vmap(lambda k: model.init(k, x)[0])(jax.random.split(jax.random.key(0), 3))
    state = model.init(jax.random.key(0), x)[1]

    def dead(p):
        _, sites = tap(lambda p: model.apply(p, state, x)[0], p)
        return jnp.mean(sites[1].y <= 0)

    lanes = jax.vmap(dead)(params)
    alone = [dead(jax.tree.map(lambda a, i=i: a[i], params)) for i in range(3)]
    np.testing.assert_array_equal(lanes, jnp.stack(alone))
