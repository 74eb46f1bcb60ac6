"""What every optimizer keeps to, over the rows of the table."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.optim.table import ROWS

from jdl import optim
from jdl.optim.names import OPTIMIZERS

STEPS = 6
SHAPES = ({"kernel": (3, 2)}, {"bias": (2,), "gain": ()})


def trees(seed, count, dtype=np.float32):
    """`count` trees of normal numbers, stacked along the first axis."""
    rng = np.random.default_rng(seed)
    draw = lambda shape: rng.normal(size=(count, *shape)).astype(dtype)  # noqa: E731
    return jax.tree.map(
        draw, SHAPES, is_leaf=lambda x: isinstance(x, tuple) and x[:1] != SHAPES[:1]
    )


PARAMS = jax.tree.map(lambda x: x[0], trees(0, 1))
GRADS = trees(1, STEPS)


def grads_at(i):
    return jax.tree.map(lambda g: jnp.asarray(g[i]), GRADS)


def loss(params):
    return sum(jnp.sum(jnp.abs(w - 0.3) ** 2) for w in jax.tree.leaves(params))


def step(optimizer, params, state, grads):
    updates, state = optimizer.update(
        grads, state, params, value=jnp.float32(0.8), value_fn=loss, no_such_keyword=1
    )
    return optim.apply_updates(params, updates), state


def scanned(row, numbers, params=PARAMS, grads=GRADS):
    """The parameters after each step, as one compiled loop."""
    optimizer = row.make(**numbers, **row.fixed)

    def body(carry, g):
        carry = step(optimizer, *carry, g)
        return carry, carry[0]

    params = jax.tree.map(jnp.asarray, params)
    return jax.lax.scan(
        body, (params, optimizer.init(params)), jax.tree.map(lambda g: g[: row.steps], grads)
    )[1]


def eager(row, numbers):
    """The same, step by step without compiling, as a list of trees."""
    optimizer = row.make(**numbers, **row.fixed)
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = optimizer.init(params)
    trajectory = []
    for i in range(row.steps):
        params, state = step(optimizer, params, state, grads_at(i))
        trajectory.append(params)
    return trajectory


def runs_alone(row, lanes):
    """Each lane's trajectory with Python numbers, [steps, n]."""
    if not row.compiled:
        return [np.stack([flat(tree) for tree in eager(row, lane)]) for lane in lanes]
    traced = jax.jit(functools.partial(scanned, row))
    first = flat(jax.jit(lambda: scanned(row, lanes[0]))())
    return [first, *(flat(traced(lane)) for lane in lanes[1:])]


def middle(row):
    return {name: values[1] for name, values in row.numbers.items()}


def flat(tree):
    """All leaves side by side: [..., n]."""
    lead = np.ndim(jax.tree.leaves(tree)[-1])
    return np.concatenate(
        [np.reshape(x, (*np.shape(x)[:lead], -1)) for x in jax.tree.leaves(tree)], axis=-1
    )


def row_name(row):
    return f"{row.make.__name__} {row.label}".strip()


every_row = pytest.mark.parametrize("row", ROWS, ids=row_name)


@every_row
def test_each_lane_of_each_number_equals_the_run_with_a_python_number(row):
    base = middle(row)
    lanes = [base]
    for name, (first, _, third) in row.numbers.items():
        lanes += [base | {name: first}, base | {name: third}]
    stacked = {name: jnp.array([lane[name] for lane in lanes]) for name in base}
    vmapped = flat(
        jax.jit(jax.vmap(functools.partial(scanned, row), axis_size=len(lanes)))(stacked)
    )
    assert np.all(np.isfinite(vmapped))
    for i, (lane, alone) in enumerate(zip(lanes, runs_alone(row, lanes), strict=True)):
        np.testing.assert_allclose(vmapped[i], alone, rtol=2e-5, atol=2e-6, err_msg=str(lane))
    for i, name in enumerate(row.numbers):
        first, second, third = vmapped[1 + 2 * i], vmapped[0], vmapped[2 + 2 * i]
        for a, b in ((first, second), (second, third), (first, third)):
            assert np.max(np.abs(a - b)) > 1e-4, f"{name} makes no difference"


@every_row
def test_each_number_may_be_a_schedule(row):
    base = middle(row)
    constant = {name: (lambda step, value=value: value) for name, value in base.items()}
    (expected,), (scheduled,) = (runs_alone(row, [numbers]) for numbers in (base, constant))
    np.testing.assert_array_equal(scheduled, expected)


@every_row
def test_compiles_once_for_two_values_and_two_steps(row):
    traces = []

    @functools.partial(jax.jit, donate_argnums=(1, 2))
    def one(numbers, params, state, grads):
        traces.append(1)
        return step(row.make(**numbers, **row.fixed), params, state, grads)

    params = jax.tree.map(jnp.array, PARAMS)
    state = row.make(**middle(row), **row.fixed).init(params)
    for i in range(3):
        numbers = {name: values[i] for name, values in row.numbers.items()}
        params, state = one(numbers, params, state, grads_at(i))
    assert len(traces) == 1


@every_row
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_keeps_tree_and_dtype_and_float32_moments(row, dtype):
    optimizer = row.make(**middle(row), **row.fixed)
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), PARAMS)
    state = jax.eval_shape(optimizer.init, params)
    updates, after = jax.eval_shape(
        lambda g, s, p: optimizer.update(g, s, p, value=loss(p), value_fn=loss),
        params,
        state,
        params,
    )
    kind = lambda x: (x.shape, x.dtype, x.weak_type)  # noqa: E731
    assert jax.tree.map(kind, updates) == jax.tree.map(kind, jax.eval_shape(lambda: params))
    assert jax.tree.structure(state) == jax.tree.structure(after)
    assert jax.tree.map(kind, state) == jax.tree.map(kind, after)
    for leaf in jax.tree.leaves(state):
        assert not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.dtype == jnp.float32


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.elementwise],
    ids=[f"{r.make.__name__} {r.label}".strip() for r in ROWS if r.elementwise],
)
def test_complex_parameters_turn_with_their_phase(row):
    phase = np.exp(0.7j).astype(np.complex64)
    turned = [jax.tree.map(lambda x: x * phase, tree) for tree in (PARAMS, GRADS)]
    real = flat(scanned(row, middle(row)))
    turned = flat(scanned(row, middle(row), *turned))
    assert turned.dtype == np.complex64
    np.testing.assert_allclose(turned / phase, real, rtol=2e-4, atol=2e-5)


# What the table does not sweep, with the reason or the test that does.
NOT_SWEPT = {
    ("asgd", "t0"): "moves the average alone: recorded in free/test_polyak.py",
    ("dog", "init_step"): "a pair, of which the row `dog` sweeps the number",
    ("prodigy", "betas"): "a pair, of which the row `prodigy` sweeps both numbers",
    ("dadapt_adamw", "betas"): "a pair, of which the row `dadapt_adamw` sweeps both numbers",
    ("parameter_ema", "decay"): "moves the average alone: lanes in transforms/test_average.py",
}
OTHER_ROWS = {"partition": "grouped", "freeze": "first_frozen"}
AVERAGES = {"parameter_ema", "swa", "polyak_average"}


def test_the_table_sweeps_every_number_of_every_optimizer_and_transform():
    """A number is an argument that is annotated as one."""
    swept = {}
    for row in ROWS:
        swept.setdefault(row.make.__name__, set()).update(row.numbers)
    public = {name: getattr(optim, name) for name in optim.__all__}
    made = {name for name, make in public.items() if _returns_an_optimizer(make)}
    assert set(OPTIMIZERS) <= made
    for name in sorted(made - AVERAGES - SOLVERS - {"chain", "schedule_free"}):
        numbers = {
            p.name
            for p in inspect.signature(public[name]).parameters.values()
            if "Number" in str(p.annotation)
        }
        missing = numbers - swept.get(OTHER_ROWS.get(name, name), set())
        assert all((name, number) in NOT_SWEPT for number in missing), (name, missing)


def _returns_an_optimizer(make):
    try:
        return inspect.signature(make).return_annotation == "Optimizer"
    except (TypeError, ValueError):
        return False


# Pairs that need the objective as a function, swept in the tests of solvers/.
SOLVERS = {
    "bfgs",
    "gauss_newton",
    "lbfgs",
    "levenberg_marquardt",
    "line_search_descent",
    "newton",
    "newton_cg",
    "scale_by_linesearch",
    "hutchinson_estimator_diag_hessian",
}


# From a gradient of 0.8 with both averages off, so that `m = g` and `v = g**2`; AdaBelief's
# `v` is then eps_root alone.
BOTH_EPS = {
    name: lambda outside, under: 0.8 / (np.sqrt(0.64 + under) + outside)
    for name in ("adam", "adamw", "nadam", "nadamw", "amsgrad", "adan", "ademamix", "radam")
} | {"adabelief": lambda outside, under: 0.8 / (np.sqrt(under) + outside)}


def test_eps_and_eps_root_stand_where_they_are_said_to(x64):
    """By hand, so that neither can be taken for the other, in every rule that has both."""
    having_both = {
        name
        for name in OPTIMIZERS
        if {"eps", "eps_root"} <= set(inspect.signature(getattr(optim, name)).parameters)
    }
    assert having_both == {*BOTH_EPS, "lamb"}
    for name in sorted(having_both):
        make = getattr(optim, name)
        numbers = {"b1": 0.0, "b2": 0.0, "eps": 0.3, "eps_root": 0.02}
        named = inspect.signature(make).parameters
        extra = {key: value for key, value in (("b3", 0.0), ("alpha", 0.0)) if key in named}
        if "weight_decay" in named:
            extra["weight_decay"] = 0.0
        if name == "radam":
            numbers["b2"] = 0.9
        optimizer = make(0.5, **numbers, **extra)
        state = optimizer.init(jnp.ones(1))
        updates, _ = optimizer.update(jnp.array([0.8]), state, jnp.ones(1))
        if name == "radam":  # its variance is trusted later: six equal gradients
            for _ in range(6):
                updates, state = optimizer.update(jnp.array([0.8]), state, jnp.ones(1))
            big = 2 / (1 - 0.9) - 1
            n = big - 2 * 6 * 0.9**6 / (1 - 0.9**6)
            r = np.sqrt((n - 4) * (n - 2) * big / ((big - 4) * (big - 2) * n))
            expected = 0.5 * r * BOTH_EPS[name](0.3, 0.02)
        elif name == "lamb":
            continue  # its norm hides the size of one element: two of them, below
        else:
            expected = 0.5 * BOTH_EPS[name](0.3, 0.02)
        np.testing.assert_allclose(updates, [-expected], rtol=1e-12, err_msg=name)
    g = np.array([0.8, 0.1])
    u = g / (np.sqrt(g**2 + 0.02) + 0.3)
    optimizer = optim.lamb(0.5, 0.0, 0.0, 0.3, 0.02, 0.0)
    updates, _ = optimizer.update(jnp.array(g), optimizer.init(jnp.ones(2)), jnp.ones(2))
    np.testing.assert_allclose(updates, -0.5 * u * np.sqrt(2) / np.linalg.norm(u), rtol=1e-12)


def test_says_what_a_tree_of_another_structure_was():
    optimizer = optim.adam(0.1)
    state = optimizer.init({"w": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"one structure, got PyTreeDef\(\[\*\]\) and .*'w'"):
        optimizer.update([jnp.ones(2)], state)


def test_rules_for_real_parameters_refuse_others():
    rules = {"shampoo": optim.shampoo(0.1), "soap": optim.soap(0.1)}
    rules["sophia"] = optim.sophia(0.1, key=jax.random.key(0))
    for name, rule in rules.items():
        with pytest.raises(TypeError, match=f"{name} is for real parameters, got complex64 at 'w'"):
            rule.init({"w": jnp.ones((2, 2), jnp.complex64)})


def test_muon_of_nothing_is_nothing():
    optimizer, empty = optim.by_name("muon")(0.1), {"w": jnp.zeros((0, 3))}
    updates, _ = optimizer.update(empty, optimizer.init(empty), empty)
    assert updates["w"].shape == (0, 3)


@pytest.mark.parametrize("row", [row for row in ROWS if "key" in row.fixed], ids=row_name)
def test_keys_are_used_once(row):
    with jax.debug_key_reuse(True):
        jax.jit(lambda: scanned(row, middle(row)))()


@every_row
def test_a_parameter_may_be_a_python_number(row):
    if row.make.__name__ == "grouped":
        pytest.skip("goes by the names of parameters")
    optimizer = row.make(**middle(row), **row.fixed)

    def run(params):
        state = optimizer.init(params)
        for _ in range(2):
            value, grads = jax.value_and_grad(loss)(params)
            extra = {"value": value, "grad": grads, "value_fn": loss}
            updates, state = optimizer.update(grads, state, params, **extra)
            params = optim.apply_updates(params, updates)
        return params

    expected = jax.eval_shape(run, (jnp.float32(1.5), jnp.float32(-2)))
    assert jax.eval_shape(lambda: run((1.5, -2.0))) == expected
    if not row.compiled:
        got, wanted = run((1.5, -2.0)), run((jnp.float32(1.5), jnp.float32(-2)))
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


@jax.tree_util.register_pytree_node_class
class Module:
    """A tree that can be called, as models of some libraries are."""

    def __init__(self, kernel, bias):
        self.kernel, self.bias = kernel, bias

    def __call__(self, x):
        return x @ self.kernel + self.bias

    def tree_flatten(self):
        return (self.kernel, self.bias), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)


def test_masks_and_labels_may_be_trees_that_can_be_called():
    params = Module(jnp.ones((2, 2)), jnp.ones(2))
    zeros, decays = jax.tree.map(jnp.zeros_like, params), Module(True, False)
    first = jax.tree_util.Partial(lambda params: Module(True, False))
    for mask in (decays, first):
        for optimizer in (
            optim.adamw(0.1, weight_decay=0.5, mask=mask),
            optim.lion(0.1, weight_decay=0.5, mask=mask),
            optim.chain(optim.add_decayed_weights(1.0, mask), optim.sgd(0.1)),
            optim.masked(optim.chain(optim.add_decayed_weights(1.0), optim.sgd(0.1)), mask),
        ):
            moved, _ = optimizer.update(zeros, optimizer.init(params), params)
            assert (moved.kernel < 0).all() and (moved.bias == 0).all()
    frozen = optim.freeze(decays)
    moved, _ = frozen.update(params, frozen.init(params), params)
    assert (moved.kernel == 0).all() and (moved.bias == 1).all()
    groups = {"a": optim.sgd(0.1), "b": optim.set_to_zero()}
    parts = optim.partition(groups, Module("a", "b"))
    moved, _ = parts.update(params, parts.init(params), params)
    assert (moved.kernel < 0).all() and (moved.bias == 0).all()
    numbers = Module(optim.MuonDimensionNumbers(), None)
    muon = optim.muon(0.1, muon_weight_dimension_numbers=numbers)
    assert muon.init(params).second_moment.kernel.size == 0
