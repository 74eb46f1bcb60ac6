# %% [markdown]
# # Adaptive rates and sparse features
#
# **Claim.** Where a feature is zero in 80 % of the rows, gradient descent, momentum and Nesterov
# move along the dense axis first; Adagrad does not. Adagrad then stalls near the end, RMSProp does
# not, and Adam combines both. Without its square root Adagrad does badly.
#
# One sigmoid neuron, two weights, 500 rows, squared error. The second feature is the sparse one.

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import numpy as np

from jdl import data, optim, plot

x, y = (jnp.asarray(a) for a in data.synthetic.sparse_feature(500, sparsity=0.8).train)
start, best = jnp.array([-2.0, 3.0]), jnp.array([2.0, -3.0])


def loss(w):
    return 0.5 * jnp.mean((jax.nn.sigmoid(x @ w) - y[:, 0]) ** 2)


def walk(optimizer, steps=300):
    def step(carry, _):
        w, state = carry
        value, gradient = jax.value_and_grad(loss)(w)
        updates, state = optimizer.update(gradient, state, w)
        return (optim.apply_updates(w, updates), state), (w, value)

    return jax.lax.scan(step, (start, optimizer.init(start)), None, length=steps + 1)[1]


def adagrad_without_root(rate):
    """`c += g**2; w -= rate * g / c`: an optimizer of one's own is a pair of functions."""

    def update(g, c, params=None, **extra):
        c = c + g**2
        return -rate * g / (c + 1e-8), c

    return optim.Optimizer(jnp.zeros_like, update)


makers = {
    "gradient descent": optim.sgd,
    "momentum": optim.momentum,
    "Nesterov": optim.nesterov,
    "Adagrad": lambda rate: optim.adagrad(rate, initial_accumulator_value=0.0),
    "RMSProp": optim.rmsprop,
    "Adam": optim.adam,
    "without root": adagrad_without_root,
}

# %% [markdown]
# ## Every optimizer at its own best rate
#
# A comparison at one rate would be one of rates. Each optimizer runs at 31 rates side by side (a
# rate is a traced number, so that is one program). Drawn is the best after 300 steps among those
# whose path stays in the picture: higher rates overshoot far and may still come back.

# %%
rates = jnp.logspace(-4, 3, 31)
runs = {name: jax.jit(jax.vmap(lambda r, m=m: walk(m(r))))(rates) for name, m in makers.items()}
view = {"x_range": (-3.2, 4.2), "y_range": (-4.2, 4.0), "labels": ("dense weight", "sparse weight")}


def best_inside(points, values):
    low, high = np.transpose([view["x_range"], view["y_range"]])
    inside = ((points > low) & (points < high)).all((1, 2))
    return int(np.argmin(np.where(inside, values[:, -1], np.inf)))


picked = {name: best_inside(*map(np.asarray, run)) for name, run in runs.items()}
paths = {name: np.asarray(points)[picked[name]] for name, (points, _) in runs.items()}
values = {name: np.asarray(v)[picked[name]] for name, (_, v) in runs.items()}
plot.contour_figure(jax.jit(jax.vmap(loss)), paths, minimum=best, apart=True, **view)


# %%
def direction(path):
    """How far the sparse weight moved for a unit of the dense one, over the first unit of way."""
    way = np.abs(path - path[0])
    early = np.argmax(np.linalg.norm(way, axis=1) > 1.0)
    return way[early, 1] / way[early, 0]


print(f"{'':17} best rate   sparse / dense     loss after 20      after 300")
for name, path in paths.items():
    rate, v = float(rates[picked[name]]), values[name]
    print(f"{name:17} {rate:9.3g} {direction(path):16.2f} {v[20]:17.1e} {v[300]:14.1e}")

# %%
plot.bands_figure(
    np.arange(301),
    values,
    x_label="step",
    y_label="loss, each at its best rate",
    y_log=True,
    marks=False,
)

# %% [markdown]
# ## How many rates work
#
# Without its root Adagrad runs along the sparse axis first, whose gradients are small, and then
# stops short. Rates so high that it overshoots bring it there as well, but fewer of them than of
# any other optimizer: a gradient that is ten times as large moves the weight a tenth as far, so the
# rate that fits is a number of this problem.

# %%
ends = {name: np.nan_to_num(np.asarray(v)[:, -1], nan=np.inf) for name, (_, v) in runs.items()}
working = {name: int(np.sum(v < 1e-3)) for name, v in ends.items()}
for name, count in working.items():
    print(f"{name:17} below 0.001 at {count:2} of {len(rates)} rates, from 0.0001 to 1000")
plot.bands_figure(
    rates,
    {name: np.maximum(v, 1e-12) for name, v in ends.items()},
    x_label="learning rate",
    y_label="loss after 300 steps",
    x_log=True,
    y_log=True,
    marks=True,
)

# %% [markdown]
# ## Where Adagrad stalls
#
# Adagrad's rate only falls. At its best rate here it is quick; at a rate that is ten times too
# small it can never make up for it, while RMSProp and Adam, whose second moment forgets, go on at
# a constant pace. So "stalls" is a statement on rates that are too small for the distance, and
# RMSProp pays for its pace with a last oscillation as wide as its rate.

# %%
small = {}
for name, rate in (("Adagrad", 0.1), ("RMSProp", 0.1), ("Adam", 0.1)):
    small[name] = np.asarray(jax.jit(lambda m=makers[name], r=rate: walk(m(r)))()[1])
print({name: f"{v[-1]:.1e}" for name, v in small.items()})
plot.bands_figure(
    np.arange(301), small, x_label="step", y_label="loss at rate 0.1", y_log=True, marks=False
)

# %%
# The claims, as assertions.
for name in ("gradient descent", "momentum", "Nesterov"):
    assert direction(paths[name]) < 0.7 * direction(paths["Adagrad"])
assert small["Adagrad"][-1] > 10 * max(small["RMSProp"][-1], small["Adam"][-1])
assert direction(paths["Adam"]) > 0.7
assert values["without root"][-1] > 1000 * values["Adagrad"][-1]
assert working["without root"] < min(n for name, n in working.items() if name != "without root")
