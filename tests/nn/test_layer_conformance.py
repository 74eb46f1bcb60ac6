"""What every layer owes: lanes equal to lone runs, traced numbers, untouched state, dtypes."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import models, nn
from jdl.nn import initializer

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
IMAGES = np.random.default_rng(1).normal(size=(3, 4, 4, 2)).astype(np.float32)
STEPS = np.random.default_rng(2).normal(size=(3, 5, 4)).astype(np.float32)
TOKENS = np.random.default_rng(3).integers(1, 7, (3, 5)).astype(np.int32)
MASKED = nn.Masked(STEPS, np.arange(5)[None] < np.array([5, 2, 3])[:, None])

# name: how a layer is made of its numbers, three values of each number ("off" among
# them where there is one), and an input. A new layer joins by being listed.
LAYERS = {
    "dense": (
        lambda s, b: nn.dense(
            3, kernel_init=initializer.normal(s), bias_init=initializer.constant(b)
        ),
        {"s": [0.0, 0.3, 1.0], "b": [0.0, -0.2, 0.5]},
        X,
    ),
    "dense_scaled": (
        lambda s: nn.dense(3, kernel_init=initializer.variance_scaling(s, "in", "truncated")),
        {"s": [0.0, 0.3, 2.0]},
        X,
    ),
    "dense_uniform": (
        lambda s: nn.dense(3, kernel_init=initializer.uniform(s)),
        {"s": [0.0, 0.3, 2.0]},
        X,
    ),
    "dense_orthogonal": (
        lambda gain: nn.dense(3, kernel_init=initializer.orthogonal(gain)),
        {"gain": [0.0, 0.3, 2.0]},
        X,
    ),
    "embedding": (
        lambda s: nn.embedding(7, 3, embedding_init=initializer.truncated_normal(s)),
        {"s": [0.1, 0.3, 2.0]},
        TOKENS,
    ),
    "maxout": (
        lambda s: nn.maxout(3, 2, kernel_init=initializer.normal(s)),
        {"s": [0.1, 0.3, 2.0]},
        X,
    ),
    "prelu": (nn.prelu, {"slope": [0.0, 0.25, -1.5]}, X),
    "leaky_relu": (
        lambda slope: nn.as_layer(lambda x: nn.leaky_relu(x, slope)),
        {"slope": [0.0, 0.25, -1.5]},
        X,
    ),
    "elu": (
        lambda alpha: nn.as_layer(lambda x: nn.elu(x, alpha)),
        {"alpha": [0.0, 0.25, 1.5]},
        X,
    ),
    "conv": (
        lambda s, b: nn.conv(
            3, 2, 2, kernel_init=initializer.normal(s), bias_init=initializer.constant(b)
        ),
        {"s": [0.1, 0.3, 2.0], "b": [0.0, -0.2, 0.5]},
        IMAGES,
    ),
    "cnn": (
        lambda dropout, s: models.cnn(
            3, features=(2,), dropout=dropout, kernel_init=initializer.normal(s)
        ),
        {"dropout": [0.0, 0.3, 0.7], "s": [0.1, 0.3, 2.0]},
        IMAGES,
    ),
    "batch_norm": (
        lambda momentum, eps: nn.batch_norm(momentum=momentum, eps=eps),
        {"momentum": [0.0, 0.3, 1.0], "eps": [0.0, 0.1, 2.0]},
        IMAGES,
    ),
    "layer_norm": (lambda eps: nn.layer_norm(eps=eps), {"eps": [1e-3, 0.1, 2.0]}, IMAGES),
    "group_norm": (lambda eps: nn.group_norm(2, eps=eps), {"eps": [0.0, 0.1, 2.0]}, IMAGES),
    "rms_norm": (lambda eps: nn.rms_norm(eps=eps), {"eps": [0.0, 0.1, 2.0]}, IMAGES),
    "inverted": (nn.dropout, {"rate": [0.0, 0.3, 0.7]}, IMAGES),
    "vanilla": (lambda rate: nn.dropout(rate, "vanilla"), {"rate": [0.0, 0.3, 0.7]}, IMAGES),
    "monte_carlo": (
        lambda rate: nn.dropout(rate, "monte_carlo"),
        {"rate": [0.0, 0.3, 0.7]},
        IMAGES,
    ),
    "rnn": (
        lambda s: nn.rnn(3, kernel_init=initializer.normal(s)),
        {"s": [0.1, 0.3, 2.0]},
        MASKED,
    ),
    "lstm": (
        lambda forget_bias: nn.lstm(3, forget_bias=forget_bias),
        {"forget_bias": [0.0, 1.0, -2.0]},
        MASKED,
    ),
    "gru": (
        lambda s: nn.gru(3, reverse=True, bias_init=initializer.constant(s)),
        {"s": [0.0, 0.3, 2.0]},
        MASKED,
    ),
    "attention": (
        lambda rotary_base, s: nn.multi_head_attention(
            2, causal=True, rotary_base=rotary_base, kernel_init=initializer.normal(s)
        ),
        {"rotary_base": [2.0, 30.0, 1e4], "s": [0.3, 0.5, 1.0]},
        MASKED,
    ),
    "learned_positions": (
        lambda s: nn.learned_positions(6, embedding_init=initializer.normal(s)),
        {"s": [0.0, 0.3, 2.0]},
        MASKED,
    ),
    "composed": (
        lambda rate, momentum: nn.chain(
            nn.parallel(nn.dense(3), nn.per_step(nn.dropout(rate))),
            nn.residual(nn.batch_norm(momentum=momentum), nn.relu, shortcut=nn.dense(7)),
        ),
        {"rate": [0.0, 0.3, 0.7], "momentum": [0.0, 0.3, 1.0]},
        X,
    ),
    "mlp": (
        lambda dropout, s: models.mlp(
            (5, 3), batch_norm=True, dropout=dropout, kernel_init=initializer.normal(s)
        ),
        {"dropout": [0.0, 0.3, 0.7], "s": [0.1, 0.3, 2.0]},
        IMAGES,
    ),
    "sigmoid_neuron": (
        lambda s: models.sigmoid_neuron(bias_init=initializer.constant(s)),
        {"s": [0.0, 0.3, -2.0]},
        X,
    ),
    "lstm_classifier": (
        lambda dropout, forget_bias: models.lstm_classifier(
            7, 2, features=4, padding=3, dropout=dropout, forget_bias=forget_bias
        ),
        {"dropout": [0.0, 0.3, 0.7], "forget_bias": [0.0, 1.0, -2.0]},
        TOKENS,
    ),
    "transformer": (
        lambda dropout, stddev: models.transformer(
            7, length=6, depth=1, features=4, heads=2, dropout=dropout, stddev=stddev
        ),
        {"dropout": [0.0, 0.3, 0.7], "stddev": [0.1, 0.3, 1.0]},
        TOKENS,
    ),
    "vit": (
        lambda dropout, stddev: models.vit(
            3, patch=2, depth=1, features=4, heads=2, dropout=dropout, stddev=stddev
        ),
        {"dropout": [0.0, 0.3, 0.7], "stddev": [0.1, 0.3, 1.0]},
        IMAGES,
    ),
}


# Layers without a number, which join LAYERS in all but what is traced.
PLAIN = {
    "max_pool": (nn.max_pool(3, 2, 1), IMAGES),
    "avg_pool": (nn.avg_pool(2, padding="SAME", count_padding=False), IMAGES),
    "global_max_pool": (nn.as_layer(nn.global_max_pool), IMAGES),
    "global_avg_pool": (nn.as_layer(nn.global_avg_pool), IMAGES),
    "conv_of_sequences": (nn.conv(4, 3, 2, 1, 2, groups=2), STEPS),
    "sinusoidal_positions": (nn.as_layer(nn.sinusoidal_positions), MASKED),
    "read_off": (
        nn.chain(
            nn.per_step(nn.dense(2)),
            nn.parallel(nn.last_step, nn.first_step, nn.mean_step),
        ),
        MASKED,
    ),
    "activations": (
        nn.parallel(
            nn.relu, nn.sigmoid, nn.tanh, nn.selu, nn.softplus, nn.gelu, nn.silu, nn.softmax,
            nn.log_softmax, nn.identity,
        ),
        X,
    ),
    "with_policy": (nn.with_policy(nn.chain(nn.flatten, nn.dense(3)), nn.Policy()), IMAGES),
    "vgg": (models.vgg(3, stages=((2,), (3,)), hidden=(4,)), IMAGES),
    "resnet": (models.resnet(3, depth=8, features=2), IMAGES),
}  # fmt: skip
DEEP = {"vgg", "resnet"}
NO_LAYERS = {
    "Apply", "Layer", "Masked", "Policy", "Row", "Summary", "Call", "composed", "initializer",
    "flops", "summary", "record", "recompute_batch_stats", "monte_carlo_prediction", "convolve",
    "as_layer", "concatenate",
}  # fmt: skip


def test_every_public_layer_is_listed():
    source = inspect.getsource(inspect.getmodule(training)).split("def training")[0]
    public = {f"nn.{n}" for n in nn.__all__} - {f"nn.{n}" for n in NO_LAYERS}
    public |= {f"models.{name}" for name in models.__all__}
    assert {name for name in public if f"{name}(" not in source and f"{name}," not in source
            and f"{name})" not in source} == set()  # fmt: skip


@pytest.mark.parametrize(
    "names",
    [
        pytest.param({name for name in PLAIN if name not in DEEP}, id="layers"),
        pytest.param(DEEP, id="models", marks=pytest.mark.slow),
    ],
)
def test_lanes_of_layers_without_numbers_equal_lone_runs(x64, names):
    """Parameters, inputs and keys mapped together: training, gradients and evaluation."""

    def both(x, seeds):
        lanes, lone = {}, {}
        for name in sorted(names):
            run = lambda x, seed, layer=PLAIN[name][0]: training(lambda: layer, {}, x, seed)  # noqa: E731
            lanes[name] = jax.vmap(run)(x[name], seeds)
            lone[name] = run(jax.tree.map(lambda leaf: leaf[1], x[name]), seeds[1])
        return lanes, lone

    def shifted(leaf):
        if leaf.dtype == np.float32:
            return jnp.asarray(np.stack([leaf, leaf[::-1], leaf[::-1] * 2]), jnp.float64)
        return jnp.asarray(np.stack([leaf, leaf[::-1], leaf[::-1]]))

    x = {name: jax.tree.map(shifted, PLAIN[name][1]) for name in names}
    lanes, lone = jax.jit(both, compiler_options=QUICKLY)(x, jnp.array([3, 4, 5]))
    for name, wanted in lone.items():
        got = jax.tree.map(lambda leaf: leaf[1], lanes[name])
        close = 1e-2 if name == "with_policy" else 1e-9  # bfloat16
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=close, atol=close / 10, err_msg=name)
        y = jax.tree.leaves(lanes[name]["y"])[0]
        assert not np.allclose(y[0], y[1]) and not np.allclose(y[1], y[2]), name


def training(make, numbers, x, seed):
    """Initialises, trains one step's forward pass and its gradient, and evaluates."""
    x = jax.tree.map(jnp.asarray, x)
    key = jax.random.fold_in(jax.random.key(17), seed)
    layer = make(**numbers)
    params, state = layer.init(jax.random.fold_in(key, 0), x)

    def loss(params):
        y, after = layer.apply(params, state, x, key=jax.random.fold_in(key, 1), train=True)
        y = y.values if isinstance(y, nn.Masked) else y
        return jnp.sum(jnp.sin(y)), (y, after)

    gradient, (y, after) = jax.grad(loss, has_aux=True)(params)
    evaluated, _ = layer.apply(params, after, x)
    return {"params": params, "y": y, "after": after, "gradient": gradient, "evaluated": evaluated}


# Nearly all of the time here is the compiler's, which need not do its best.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
SLOW = {"lstm_classifier", "transformer", "vit"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in LAYERS]
)
def test_lanes_equal_lone_runs_and_every_number_is_traced(name):
    make, numbers, x = LAYERS[name]
    columns = {key: jnp.array(values) for key, values in numbers.items()}
    # Lane 3 repeats lane 1's numbers with another seed.
    columns = {key: values[jnp.array([0, 1, 2, 1])] for key, values in columns.items()}
    seeds = jnp.array([5, 6, 6, 7])
    jit = functools.partial(jax.jit, compiler_options=QUICKLY)
    lanes = jit(jax.vmap(lambda n, seed: training(make, n, x, seed)))(columns, seeds)
    lone = jit(lambda: training(make, {k: v[1] for k, v in numbers.items()}, x, 6))()
    lane = jax.tree.map(lambda leaf: leaf[1], lanes)
    for part, wanted in lone.items():
        for a, b in zip(jax.tree.leaves(lane[part]), jax.tree.leaves(wanted), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6, err_msg=f"{name} {part}")
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(lanes) if leaf.size)
    # Numbers reach the result: lanes 1 and 2 have one seed and other numbers.
    results = [leaf for part in ("y", "after") for leaf in jax.tree.leaves(lanes[part])]
    assert any(not np.allclose(leaf[1], leaf[2]) for leaf in results)
    if jax.tree.leaves(lone["params"]) and name not in ("prelu", "batch_norm", "layer_norm"):
        leaves = jax.tree.leaves(lanes["params"])
        assert any(not np.allclose(leaf[1], leaf[3]) for leaf in leaves) or "norm" in name


def listed(name):
    """The layer called `name`, of its second numbers, and its input."""
    if name in PLAIN:
        return PLAIN[name]
    make, numbers, x = LAYERS[name]
    return make(**{key: values[1] for key, values in numbers.items()}), x


# A policy's dtypes are its own.
@pytest.mark.parametrize("name", sorted({*LAYERS, *PLAIN} - {"with_policy"}))
def test_shapes_suffice_state_is_left_alone_and_dtypes_follow(name):
    layer, x = listed(name)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)
    params, state = jax.eval_shape(lambda key: layer.init(key, shapes), jax.random.key(0))
    assert layer.name and all(isinstance(part, nn.Layer) for part in layer.parts)

    def evaluate(params, state, x):
        y, after = layer.apply(params, state, x)
        same = jax.tree.map(lambda a, b: a is b, state, after)
        assert jax.tree.all(same), "evaluation made another state"
        return y

    def half(tree):
        def leaf(a):
            floating = jnp.issubdtype(a.dtype, jnp.floating)
            return jax.ShapeDtypeStruct(a.shape, jnp.bfloat16 if floating else a.dtype)

        return jax.tree.map(leaf, tree)

    y = jax.eval_shape(evaluate, params, state, shapes)
    low = jax.eval_shape(evaluate, half(params), state, half(shapes))
    assert jax.tree.map(jnp.shape, low) == jax.tree.map(jnp.shape, y)
    for leaf, wide in zip(jax.tree.leaves(low), jax.tree.leaves(y), strict=True):
        if jnp.issubdtype(wide.dtype, jnp.floating):
            assert (leaf.dtype, wide.dtype) == (jnp.bfloat16, jnp.float32)
    trained = jax.eval_shape(
        lambda p, s, x: layer.apply(p, s, x, key=jax.random.key(0), train=True)[1],
        half(params),
        state,
        half(shapes),
    )
    assert trained == state


@pytest.mark.parametrize("name", [*LAYERS, *PLAIN])
def test_every_layer_is_called_alike(name):
    layer, _ = listed(name)
    parameters = inspect.signature(layer.apply).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY}
    assert defaults == {"key": None, "train": False}
    assert [p.name for p in parameters][:3] == ["params", "state", "x"]
    assert list(inspect.signature(layer.init).parameters) == ["key", "x"]
