# %% [markdown]
# # Optimizers on a surface
#
# **Claims.** Gradient descent crawls on gentle slopes; momentum overshoots and still arrives
# earlier; Nesterov's momentum oscillates less. And a very high rate blows up on the steep part.
#
# The surface is the one of a first lecture: one sigmoid neuron with a weight and a bias, two
# examples, squared error. It has a plateau, a cliff and a valley.

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import numpy as np

from jdl import optim, plot

x, y = jnp.array([0.5, 2.5]), jnp.array([0.2, 0.9])
# Two examples and two parameters: the neuron can fit both, where the loss is 0.
w_best = (jax.scipy.special.logit(y[1]) - jax.scipy.special.logit(y[0])) / (x[1] - x[0])
best = jnp.array([w_best, jax.scipy.special.logit(y[0]) - w_best * x[0]])


def loss(point):
    return 0.5 * jnp.sum((jax.nn.sigmoid(point[0] * x + point[1]) - y) ** 2)


def walk(optimizer, loss, start, steps):
    """The points that an optimizer visits, the start included, and the losses there."""

    def step(carry, _):
        point, state = carry
        value, gradient = jax.value_and_grad(loss)(point)
        updates, state = optimizer.update(gradient, state, point, value=value, value_fn=loss)
        return (optim.apply_updates(point, updates), state), (point, value)

    return jax.lax.scan(step, (start, optimizer.init(start)), None, length=steps + 1)[1]


# %% [markdown]
# ## Three optimizers from one start
#
# The same rate, 1, for all; momentum 0.9 for two of them.

# %%
optimizers = {
    "gradient descent": optim.sgd(1.0),
    "momentum": optim.momentum(1.0, 0.9),
    "Nesterov": optim.nesterov(1.0, 0.9),
}
start = jnp.array([-3.0, -1.0])
walks = {
    name: jax.jit(lambda s, o=o: walk(o, loss, s, 400))(start) for name, o in optimizers.items()
}
paths = {name: points for name, (points, _) in walks.items()}
view = {"x_range": (-4.5, 5.5), "y_range": (-7.5, 2.5)}
losses = jax.jit(jax.vmap(loss))
plot.contour_figure(losses, paths, minimum=best, frames=(20, 50, 100, 300), **view)

# %%
plot.surface_figure(losses, paths, view=(40, -60), **view)

# %% [markdown]
# ## From many starts
#
# One start proves little. From 60 starts, as lanes of one `vmap`: the steps until the loss stays
# below 0.001, the length of the path, and how often the loss went up. The starts with `w` up to -2
# lie on the plateau, those above on the cliff.

# %%
ws, bs = jnp.meshgrid(jnp.linspace(-4, -1, 10), jnp.linspace(-2, 2, 6))
grid = jnp.stack([ws, bs], -1).reshape(-1, 2)
plateau = np.asarray(grid[:, 0] < -1.9)


def figures_of(optimizer):
    points, values = jax.jit(jax.vmap(lambda s: walk(optimizer, loss, s, 1500)))(grid)
    points, values = np.asarray(points), np.asarray(values)
    arrived = np.array([np.flatnonzero(v >= 1e-3)[-1] + 1 for v in values])  # 1501: not yet
    length = np.linalg.norm(np.diff(points, axis=1), axis=-1).sum(1)
    ups = (np.diff(values, axis=1) > 1e-7).sum(1)
    return values, arrived, length, ups


figures = {name: figures_of(optimizer) for name, optimizer in optimizers.items()}
for name, (_, arrived, length, ups) in figures.items():
    print(
        f"{name:17} median steps from the plateau {np.median(arrived[plateau]):4.0f}, from the "
        f"cliff {np.median(arrived[~plateau]):4.0f}; length of the path {np.median(length):4.1f}; "
        f"the loss rises in {np.median(ups):2.0f} steps"
    )

# %% [markdown]
# From the plateau momentum arrives earlier, as taught. From the cliff, where the slope is steep, it
# arrives *later* than gradient descent, because it has to come back. Nesterov is ahead of momentum
# from nearly everywhere.

# %%
shown = {name: values[plateau, :1000] for name, (values, *_) in figures.items()}
plot.bands_figure(
    np.arange(1000),
    shown,
    x_label="step",
    y_label=f"loss, median and middle half of {plateau.sum()} starts on the plateau",
    y_log=True,
    y_range=(1e-7, 1),
    quantiles=(0.25, 0.75),
)

# %% [markdown]
# ## Does Nesterov always oscillate less?
#
# No. In a direction of curvature `h` at rate `r`, with `p = rh`, what is left is multiplied at each
# step by the larger root of `z² - (1 + m - p) z + m` with momentum, and of
# `z² - (1 + m)(1 - p) z + m (1 - p)` with Nesterov. Below, what 150 steps on a parabola really do,
# and how far that is from the roots. Below 1 a run converges, above it diverges.

# %%
products = np.concatenate([np.linspace(0.05, 1.3, 12), np.linspace(1.4, 3.9, 12)])
STEPS = 150


def factor(make):
    def measured(product):
        values = walk(make(product), lambda w: 0.5 * jnp.sum(w**2), jnp.array([1.0]), STEPS)[1]
        return (jnp.max(values[110:]) / jnp.max(values[30:71])) ** (0.5 / 80)  # of the distance

    with jax.enable_x64(True):  # in float32 the fastest would reach 0
        return np.asarray(jax.jit(jax.vmap(measured))(jnp.asarray(products)))


def root(b, c):
    return max(abs(np.roots([1.0, -b, c])))


m = 0.9
theory = {
    "momentum": [root(1 + m - p, m) for p in products],
    "Nesterov": [root((1 + m) * (1 - p), m * (1 - p)) for p in products],
}
measured = {
    "momentum": factor(lambda p: optim.momentum(p, m)),
    "Nesterov": factor(lambda p: optim.nesterov(p, m)),
}
for name in measured:
    print(
        f"{name}: largest difference from the root {abs(measured[name] - theory[name]).max():.3f}"
    )
figure = plot.bands_figure(
    products,
    measured,
    x_label="rate times curvature",
    y_label="distance left after a step, as a factor",
    y_range=(0, 2),
    marks=True,
)
figure.axes[0].axhline(1.0, color="black", linewidth=0.8)
figure

# %% [markdown]
# Nesterov damps faster up to a rate of about 1.36 over the largest curvature, `(2 + 2m) / (1 + 2m)`
# exactly, and *diverges* beyond it, where plain momentum still converges up to `2 (1 + m)`, 3.8.
# "Oscillates less" is a statement on rates below that bound.

# %% [markdown]
# ## A very high rate
#
# On the cliff the gradient is large. A rate that is harmless on the plateau throws the point far
# beyond the valley, onto a plateau where hardly any gradient is left. A search over rates
# (`optim.line_search_descent`) takes the long steps only where they lower the loss: it never goes
# up, though from here it ends in a flat corner of the valley, at a loss of 0.005.

# %%
cliff = jnp.array([0.0, 0.0])
tries = {
    "rate 1": optim.sgd(1.0),
    "rate 10": optim.sgd(10.0),
    "rate 100": optim.sgd(100.0),
    "line search": optim.line_search_descent((0.1, 1.0, 10.0, 100.0)),
}
blown = {name: jax.jit(lambda o=o: walk(o, loss, cliff, 100))() for name, o in tries.items()}
for name, (_, values) in blown.items():
    print(
        f"{name:11}  loss {values[0]:.3f} at the start, {values[1]:.3f} after a step, "
        f"{values[20]:.4f} after 20, {values[100]:.4f} after 100"
    )
plot.contour_figure(
    losses,
    {name: points for name, (points, _) in blown.items()},
    minimum=best,
    x_range=(-5, 25),
    y_range=(-10, 8),
    apart=True,
)

# %%
# The claims, as assertions.
arrived = {name: steps for name, (_, steps, _, _) in figures.items()}
gentle = {name: np.median(steps[plateau]) for name, steps in arrived.items()}
assert max(gentle["momentum"], gentle["Nesterov"]) < 0.7 * gentle["gradient descent"]
assert (arrived["Nesterov"] <= arrived["momentum"]).mean() > 0.9
assert np.median(figures["momentum"][3]) > np.median(figures["Nesterov"][3]) > 0
assert (measured["Nesterov"] < measured["momentum"])[products < 1.3].all()
assert (measured["Nesterov"] > 1)[products > 1.4].all()
