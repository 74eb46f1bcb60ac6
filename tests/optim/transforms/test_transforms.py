"""Transforms, clipping, finite guards, groups and wrappers against plain loops and properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim, tree

PARAMS = {"kernel": np.array([[0.4, -1.2], [2.0, 0.3], [-0.7, 0.9]]), "bias": np.array([1.1, -0.6])}


def draw(steps, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {key: jnp.asarray(rng.normal(size=w.shape)) for key, w in PARAMS.items()}
        for _ in range(steps)
    ]


def start():
    return jax.tree.map(jnp.asarray, PARAMS)


def run(optimizer, grads, params=None, **extra):
    """All updates and the last parameters and state."""
    w = start() if params is None else params
    state, updates = optimizer.init(w), []
    for g in grads:
        u, state = optimizer.update(g, state, w, **extra)
        w = optim.apply_updates(w, u)
        updates.append(u)
    return updates, w, state


def close(a, b, rtol=1e-12):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-300), a, b)


# Scaling and what passes.


def test_identity_zero_and_scale(x64):
    (g,) = draw(1)
    close(run(optim.identity(), [g])[0][0], g)
    close(run(optim.set_to_zero(), [g])[0][0], jax.tree.map(jnp.zeros_like, g))
    first, second = run(optim.scale(lambda step: 0.5 + step), [g, g])[0]
    close(first, jax.tree.map(lambda x: 0.5 * x, g))
    close(second, jax.tree.map(lambda x: 1.5 * x, g))


def test_off_is_a_value(x64):
    (g,) = draw(1)
    for off in (
        optim.clip(jnp.inf),
        optim.clip_by_global_norm(jnp.inf),
        optim.clip_by_block_rms(jnp.inf),
        optim.adaptive_grad_clip(jnp.inf),
        optim.add_decayed_weights(0.0),
        optim.add_noise(0.0, 0.5, jax.random.key(0)),
        optim.ema(0.0),
        optim.scale(1.0),
        optim.accumulate(optim.identity(), 1),
        optim.masked(optim.set_to_zero(), {"kernel": False, "bias": False}),
    ):
        close(run(off, [g])[0][0], g)


def test_a_masked_decay_reads_a_tree_a_prefix_or_a_function(x64):
    (g,) = draw(1)
    kernel_only = {"kernel": g["kernel"] + 0.3 * PARAMS["kernel"], "bias": g["bias"]}
    for mask in (
        {"kernel": True, "bias": False},
        lambda params: jax.tree.map(lambda w: w.ndim > 1, params),
        optim.by_path(lambda path: path == "kernel"),
    ):
        close(run(optim.add_decayed_weights(0.3, mask), [g])[0][0], kernel_only)
    everything = jax.tree.map(lambda x, w: x + 0.3 * w, g, start())
    close(run(optim.add_decayed_weights(0.3), [g])[0][0], everything)
    close(run(optim.add_decayed_weights(0.3, True), [g])[0][0], everything)


def test_decay_says_that_it_needs_the_parameters():
    optimizer = optim.add_decayed_weights(0.1)
    with pytest.raises(ValueError, match="add_decayed_weights needs the parameters"):
        optimizer.update(start(), optimizer.init(start()))


# Clipping.


def test_one_lane_with_a_huge_gradient_leaves_the_others_alone():
    g = jnp.array([[0.3, 0.4], [3e20, 4e20], [3.0, 4.0]])

    def lane(g):
        optimizer = optim.clip_by_global_norm(1.0)
        return optimizer.update(g, optimizer.init(g))[0]

    found = jax.vmap(lane)(g)
    assert found[0].tolist() == g[0].tolist()
    np.testing.assert_allclose(found[2], [0.6, 0.8], rtol=1e-6)


def test_norms_do_not_overflow_in_half_precision():
    g = jnp.full(4, 400.0, jnp.float16)
    clipped, _ = optim.clip_by_global_norm(1.0).update(g, optim.clip_by_global_norm(1.0).init(g))
    np.testing.assert_allclose(np.asarray(clipped, np.float32), 0.5, rtol=1e-3)
    assert clipped.dtype == jnp.float16


def test_clipping_a_zero_gradient_is_zero_and_differentiable():
    for optimizer in (
        optim.clip_by_global_norm(1.0),
        optim.clip_by_block_rms(1.0),
        optim.normalize_by_update_norm(1.0, 0.0),
    ):
        updates, _ = optimizer.update(jnp.zeros(3), optimizer.init(jnp.zeros(3)))
        assert updates.tolist() == [0.0, 0.0, 0.0]


def test_clip_by_value_holds_the_modulus_of_a_complex_number(x64):
    g = jnp.array([3.0 + 4.0j, 0.3 - 0.4j])
    clipped, _ = optim.clip(2.5).update(g, optim.clip(2.5).init(g))
    np.testing.assert_allclose(clipped, [1.5 + 2.0j, 0.3 - 0.4j], rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((), None),
        ((4,), None),
        ((1, 4), None),
        ((3, 2), 0),
        ((3, 2, 2), 0),
        ((2, 3, 2, 2), (0, 1, 2)),
        ((2, 1, 3, 2, 2), (0, 1, 2, 3)),
    ],
)
def test_adaptive_clipping_has_a_norm_for_each_unit(shape, axes, x64):
    rng = np.random.default_rng(1)
    w, g = rng.normal(size=shape), rng.normal(size=shape)
    norm = lambda x: np.sqrt(np.sum(x**2, axes, keepdims=True))  # noqa: E731
    limit = 0.4 * np.maximum(norm(w), 0.9)
    expected = np.where(norm(g) > limit, g * limit / norm(g), g)
    optimizer = optim.adaptive_grad_clip(0.4, 0.9)
    found, _ = optimizer.update(jnp.asarray(g), optimizer.init(w), jnp.asarray(w))
    np.testing.assert_allclose(found, expected.reshape(shape), rtol=1e-12)


def test_adaptive_clipping_takes_axes(x64):
    rng = np.random.default_rng(1)
    w, g = rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 4, 2))
    norm = lambda x: np.sqrt(np.sum(x**2, (0, 1), keepdims=True))  # noqa: E731
    limit = 0.2 * norm(w)
    optimizer = optim.adaptive_grad_clip(0.2, axis=(0, 1))
    found, _ = optimizer.update(jnp.asarray(g), optimizer.init(w), jnp.asarray(w))
    np.testing.assert_allclose(found, np.where(norm(g) > limit, g * limit / norm(g), g), rtol=1e-12)


def test_centralize_leaves_each_output_without_a_mean(x64):
    g = {
        "kernel": draw(1)[0]["kernel"],
        "bias": jnp.array([1.0, 2.0]),
        "conv": jnp.ones((2, 3, 4, 5)),
    }
    found, _ = optim.centralize(-1).update(g, optim.centralize(-1).init(g))
    expected = g["kernel"] - np.mean(g["kernel"], 0, keepdims=True)
    np.testing.assert_allclose(found["kernel"], expected, rtol=1e-12)
    assert found["bias"].tolist() == [1.0, 2.0]
    assert float(jnp.max(jnp.abs(found["conv"]))) == 0.0
    rows, _ = optim.centralize().update(g, optim.centralize().init(g))
    expected = g["kernel"] - np.mean(g["kernel"], 1, keepdims=True)
    np.testing.assert_allclose(rows["kernel"], expected, rtol=1e-12)


# Noise.


def test_noise_has_the_variance_it_says_and_is_new_at_every_step():
    g = {"a": jnp.zeros((300, 100)), "b": jnp.zeros((300, 100))}
    optimizer = optim.add_noise(0.4, 0.7, jax.random.key(1))
    (first, second), _, _ = run(optimizer, [g, g], g)
    for t, found in ((1, first), (2, second)):
        for leaf in found.values():
            variance = 0.4 / t**0.7
            # The variance of n samples has a standard error of variance * sqrt(2 / n).
            assert abs(float(jnp.var(leaf)) - variance) < 5 * variance * (2 / leaf.size) ** 0.5
            assert abs(float(jnp.mean(leaf))) < 5 * (variance / leaf.size) ** 0.5
    pairs = ((first["a"], first["b"]), (first["a"], second["a"]), (first["b"], second["a"]))
    for x, y in pairs:
        assert abs(float(jnp.corrcoef(x.ravel(), y.ravel())[0, 1])) < 5 / x.size**0.5
    again, _ = optimizer.update(g, optimizer.init(g))
    assert jnp.array_equal(again["a"], first["a"])


# Not finite.


def test_zero_nans_zeroes_and_reports_them():
    g = {"a": jnp.array([1.0, jnp.nan, jnp.inf]), "b": jnp.array([2.0])}
    updates, state = optim.zero_nans().update(g, optim.zero_nans().init(g))
    assert updates["a"].tolist() == [1.0, 0.0, float("inf")]
    assert {k: bool(v) for k, v in state.found_nan.items()} == {"a": True, "b": False}
    updates, state = optim.zero_nans(infinite=True).update(g, state)
    assert updates["a"].tolist() == [1.0, 0.0, 0.0]
    clean = {"a": jnp.array([1.0, 2.0, -jnp.inf]), "b": jnp.array([2.0])}
    _, state = optim.zero_nans().update(clean, state)
    assert not any(bool(v) for v in state.found_nan.values())
    assert not any(bool(v) for v in optim.zero_nans().init(g).found_nan.values())


def test_a_step_that_is_not_finite_changes_nothing(x64):
    good, bad = draw(1)[0], {"kernel": jnp.full((3, 2), jnp.nan), "bias": jnp.ones(2)}
    inner = optim.adam(0.1, 0.6, 0.7)
    skipped, w, state = run(optim.apply_if_finite(inner, 3), [good, bad, bad, good])
    expected, w_expected, inner_state = run(inner, [good, good])
    close([skipped[0], skipped[3]], expected)
    close(w, w_expected)
    close(state.inner, inner_state)
    assert all(float(jnp.max(jnp.abs(x))) == 0 for u in skipped[1:3] for x in u.values())
    counts = (int(state.consecutive), int(state.total), bool(state.last_finite))
    assert counts == (0, 2, True)


def test_too_many_in_a_row_pass():
    bad = {"kernel": jnp.full((3, 2), jnp.inf), "bias": jnp.ones(2)}
    for limit in (0, 2):
        updates, _, state = run(optim.apply_if_finite(optim.sgd(0.1), limit), [bad] * 4)
        passed = [not bool(tree.all_finite(u)) for u in updates]
        assert passed == [i >= limit for i in range(4)]
        assert int(state.consecutive) == int(state.total) == 4 and not bool(state.last_finite)


def test_a_traced_limit_of_errors():
    bad = jnp.array([jnp.nan])

    def passed(limit):
        optimizer = optim.apply_if_finite(optim.sgd(0.1), limit)
        _, state = optimizer.update(bad, optimizer.init(bad))
        return jnp.isnan(optimizer.update(bad, state)[0])[0]

    assert jax.vmap(passed)(jnp.array([0, 1, 2])).tolist() == [True, True, False]


# Groups.


def test_each_group_is_moved_by_its_own_optimizer(x64):
    grads = draw(4)
    groups = {"k": optim.adam(0.1, 0.6, 0.7), "b": optim.momentum(0.3, 0.8)}
    labels = {"kernel": "k", "bias": "b"}
    updates, _, state = run(optim.partition(groups, labels), grads)
    for name, label in labels.items():
        alone = run(groups[label], [{name: g[name]} for g in grads], {name: start()[name]})[0]
        close([{name: u[name]} for u in updates], alone)
    momentum_state, adam_state = state.inner
    assert tree.size(adam_state.first_moment) == 6 and tree.size(momentum_state.velocity) == 2


def test_labels_by_path_and_by_prefix():
    params = ({"kernel": jnp.ones(2), "bias": jnp.ones(1)}, {"kernel": jnp.ones(3)})
    labels = optim.by_path(lambda path: path.startswith("0/"))(params)
    assert labels == ({"kernel": True, "bias": True}, {"kernel": False})
    groups = {True: optim.sgd(1.0), False: optim.set_to_zero()}
    for given in (optim.by_path(lambda path: path.startswith("0/")), (True, False)):
        updates, _, _ = run(optim.partition(groups, given), [params], params)
        assert updates[0][0]["kernel"].tolist() == [-1.0, -1.0]
        assert updates[0][1]["kernel"].tolist() == [0.0, 0.0, 0.0]


def test_an_unknown_label_is_named_with_its_parameter():
    optimizer = optim.partition(
        {"a": optim.sgd(0.1), "b": optim.sgd(0.1)}, {"kernel": "a", "bias": "c"}
    )
    with pytest.raises(ValueError, match=r"'bias' has the label 'c', expected one of 'a', 'b'"):
        optimizer.init(start())


def test_a_group_is_given_the_loss_as_a_function_of_itself(x64):
    def loss(w):
        return jnp.sum(w["kernel"] ** 2) * jnp.sum(w["bias"] ** 2)

    optimizer = optim.partition(
        {"k": optim.sgd(0.1), "b": optim.sam(optim.sgd(0.1), 0.3)}, {"kernel": "k", "bias": "b"}
    )
    w = start()
    grads = jax.grad(loss)(w)
    updates, _ = optimizer.update(grads, optimizer.init(w), w, value_fn=loss)
    bias = PARAMS["bias"]
    ahead = bias + 0.3 * bias / np.linalg.norm(bias)
    expected = -0.1 * 2 * ahead * np.sum(PARAMS["kernel"] ** 2)
    np.testing.assert_allclose(updates["bias"], expected, rtol=1e-12)


def test_groups_work_without_parameters():
    optimizer = optim.partition({0: optim.sgd(0.1), 1: optim.sgd(0.2)}, {"kernel": 0, "bias": 1})
    ones = jax.tree.map(jnp.ones_like, start())
    updates, _ = optimizer.update(ones, optimizer.init(ones))
    assert updates["bias"].tolist() == pytest.approx([-0.2, -0.2])
    assert updates["kernel"][0].tolist() == pytest.approx([-0.1, -0.1])


def test_masked_passes_the_rest_and_freeze_stops_it(x64):
    (g,) = draw(1)
    mask = {"kernel": True, "bias": False}
    updates = run(optim.masked(optim.scale(-2.0), mask), [g])[0][0]
    close(updates, {"kernel": -2.0 * g["kernel"], "bias": g["bias"]})
    updates = run(optim.freeze(mask), [g])[0][0]
    close(updates, {"kernel": jnp.zeros((3, 2)), "bias": g["bias"]})
    updates = run(optim.freeze(lambda params: jax.tree.map(lambda w: w.ndim < 2, params)), [g])[0][
        0
    ]
    close(updates, {"kernel": g["kernel"], "bias": jnp.zeros(2)})


# Wrappers.


def test_accumulating_equal_batches_is_one_large_batch(x64):
    grads = draw(9)
    inner = optim.adam(lambda step: 0.1 / (1 + step), 0.6, 0.7)
    updates, w, state = run(optim.accumulate(inner, 3), grads)
    means = [jax.tree.map(lambda *g: sum(g) / 3, *grads[i : i + 3]) for i in (0, 3, 6)]
    expected, w_expected, inner_state = run(inner, means)
    close(updates[2::3], expected, 1e-10)
    close(w, w_expected, 1e-10)
    close(state.inner, inner_state, 1e-10)
    assert int(state.step) == 3 and int(state.micro_step) == 0
    for i in (0, 1, 3, 4, 6, 7):
        assert float(tree.norm(updates[i])) == 0.0


def test_accumulating_a_sum_over_a_growing_number(x64):
    grads = draw(6)
    updates, _, state = run(optim.accumulate(optim.sgd(0.1), lambda step: step + 1, False), grads)
    sums = [
        grads[0],
        jax.tree.map(lambda *g: sum(g), *grads[1:3]),
        jax.tree.map(lambda *g: sum(g), *grads[3:6]),
    ]
    expected = [jax.tree.map(lambda g: -0.1 * g, s) for s in sums]
    close([updates[0], updates[2], updates[5]], expected)
    assert int(state.step) == 3


def test_accumulates_in_float32():
    g = jnp.array([1.0], jnp.bfloat16)
    assert optim.accumulate(optim.sgd(0.1), 2).init(g).collected.dtype == jnp.float32
    half = optim.accumulate(optim.sgd(0.1), 2, accumulator_dtype=jnp.bfloat16).init(g)
    assert half.collected.dtype == jnp.bfloat16


@pytest.mark.parametrize("reset", [False, True])
def test_lookahead_is_its_loop(reset, x64):
    grads = draw(7)
    inner = optim.momentum(0.1, 0.8)
    _, w, state = run(optim.lookahead(inner, 3, 0.4, reset), grads)
    fast, slow, v = dict(PARAMS), dict(PARAMS), jax.tree.map(np.zeros_like, PARAMS)
    for i, g in enumerate(grads):
        v = {k: 0.8 * v[k] + 0.1 * np.asarray(g[k]) for k in v}
        fast = {k: fast[k] - v[k] for k in v}
        if i % 3 == 2:
            slow = {k: slow[k] + 0.4 * (fast[k] - slow[k]) for k in v}
            fast = dict(slow)
            v = jax.tree.map(np.zeros_like, v) if reset else v
    close(w, fast, 1e-10)
    close(state.slow, slow, 1e-10)
    assert int(state.since_sync) == 1 and int(state.step) == 7


def loss(w):
    return jnp.sum(jnp.cos(w["kernel"]) @ w["bias"]) + jnp.sum(w["bias"] ** 4)


@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_takes_the_gradient_at_the_worst_point_near_by(adaptive, x64):
    optimizer = optim.sam(optim.momentum(0.1, 0.8), 0.3, adaptive)
    w, state, v = start(), optimizer.init(start()), 0.0
    for _ in range(3):
        g = jax.grad(loss)(w)
        updates, state = optimizer.update(g, state, w, value_fn=loss)
        size = {k: np.abs(w[k]) if adaptive else 1.0 for k in w}
        length = np.sqrt(sum(np.sum((size[k] * g[k]) ** 2) for k in g))
        worst = {k: w[k] + 0.3 * size[k] ** 2 * g[k] / length for k in g}
        v = (
            jax.tree.map(lambda a, b: 0.8 * a + 0.1 * b, v, jax.grad(loss)(worst))
            if v
            else (jax.tree.map(lambda b: 0.1 * b, jax.grad(loss)(worst)))
        )
        close(updates, jax.tree.map(lambda x: -x, v), 1e-11)
        w = optim.apply_updates(w, updates)
    assert int(state.step) == 3


def test_sam_says_what_it_needs_and_stands_a_zero_gradient():
    optimizer = optim.sam(optim.sgd(0.1))
    w = jnp.ones(2)
    state = optimizer.init(w)
    with pytest.raises(ValueError, match=r"`sam` needs the loss .* value_fn=loss"):
        optimizer.update(w, state, w)
    with pytest.raises(ValueError, match="sam needs the parameters"):
        optimizer.update(w, state, value_fn=jnp.sum)
    updates, _ = optimizer.update(jnp.zeros(2), state, w, value_fn=lambda w: jnp.sum(0.0 * w))
    assert updates.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optim.add_decayed_weights(-1.0), r"`weight_decay` must be in \[0, inf\)"),
        (lambda: optim.normalize_by_update_norm(0.0), r"`scale_factor` must be in \(0, inf\)"),
        (lambda: optim.normalize_by_update_norm(1.0, -1), r"`eps` must be in \[0, inf\)"),
        (lambda: optim.add_noise(-1, 0.5, None), r"`eta` must be in \[0, inf\)"),
        (lambda: optim.add_noise(1, -0.5, None), r"`gamma` must be in \[0, inf\)"),
        (lambda: optim.ema(1.0), r"`decay` must be in \[0, 1\)"),
        (lambda: optim.clip(0.0), r"`max_delta` must be in \(0, inf\]"),
        (lambda: optim.clip_by_global_norm(0.0), r"`max_norm` must be in \(0, inf\]"),
        (lambda: optim.clip_by_block_rms(0.0), r"`threshold` must be in \(0, inf\]"),
        (lambda: optim.adaptive_grad_clip(0.0), r"`clipping` must be in \(0, inf\]"),
        (lambda: optim.adaptive_grad_clip(0.1, 0.0), r"`eps` must be in \(0, inf\)"),
        (lambda: optim.apply_if_finite(optim.sgd(1), -1), r"`max_consecutive_errors` .*\[0, inf\]"),
        (lambda: optim.accumulate(optim.sgd(1), 0), r"`every` must be in \[1, inf\)"),
        (lambda: optim.lookahead(optim.sgd(1), 0, 0.5), r"`sync_period` must be in \[1, inf\)"),
        (lambda: optim.lookahead(optim.sgd(1), 2, 1.5), r"`slow_step_size` must be in \[0, 1\]"),
        (lambda: optim.sam(optim.sgd(1), -0.1), r"`rho` must be in \[0, inf\)"),
        (lambda: optim.parameter_ema(1.5), r"`decay` must be in \[0, 1\]"),
        (lambda: optim.swa(-1), r"`start` must be in \[0, inf\]"),
        (lambda: optim.swa(0, 0), r"`period` must be in \[1, inf\)"),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_named(make, match):
    with pytest.raises(ValueError, match=match):
        make()
