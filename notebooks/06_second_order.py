# %% [markdown]
# # Second order
#
# **Claim.** L-BFGS beats first-order methods in full batch and loses in mini-batch.
#
# Softmax regression on 600 digits with a small penalty, a convex loss of 640 numbers. What is
# counted is evaluations of the loss and its gradient, those of line searches included. Every
# first-order method runs at ten rates, and its best one is taken.

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import numpy as np

from jdl import data, losses, optim, plot

x, y = (jnp.asarray(a[:600]) for a in data.digits().train)
# A fifth of the labels are random, so that the gradients of single images never agree.
random = np.random.default_rng(0)
y = jnp.where(random.random(600) < 0.2, random.integers(0, 10, 600), y)


def loss(kernel, batch=(x, y)):
    error = losses.softmax_cross_entropy(batch[0] @ kernel, batch[1]).mean()
    return error + 5e-3 * jnp.sum(kernel**2)


start = jnp.zeros((64, 10))
least = jax.jit(lambda w: optim.minimize(loss, w, gradient_tolerance=1e-6))(start)


def above(values):
    """Above the minimum, as far as float32 tells."""
    return np.maximum(np.asarray(values, float) - float(least.value), 1e-7)


rates = jnp.logspace(-2.5, 1, 10)
makers = {
    "gradient descent": optim.sgd,
    "momentum": optim.momentum,
    "Adam": optim.adam,
}

# %% [markdown]
# ## Full batch

# %%
BUDGET = 100


def course(make):
    def one(rate):
        optimizer = make(rate)

        def step(carry, _):
            w, state = carry
            value, gradient = jax.value_and_grad(loss)(w)
            updates, state = optimizer.update(gradient, state, w)
            return (optim.apply_updates(w, updates), state), value

        return jax.lax.scan(step, (start, optimizer.init(start)), None, length=BUDGET)[1]

    values = np.asarray(jax.jit(jax.vmap(one))(rates))
    return values[np.nan_to_num(values[:, -1], nan=np.inf).argmin()]


curves = {name: above(course(make)) for name, make in makers.items()}


@jax.jit
def solved(iterations):
    return optim.minimize(loss, start, "lbfgs", max_iterations=iterations, gradient_tolerance=0.0)


stages = [solved(n) for n in range(0, 90, 3)]
spent = np.array([int(s.evaluations) for s in stages])
reached = above([s.value for s in stages])
at = np.arange(1, BUDGET + 1)
curves["L-BFGS"] = np.exp(np.interp(at, spent, np.log(reached)))
print("above the minimum after 40 and 100 evaluations:")
for name, curve in curves.items():
    print(f"{name:17} {curve[39]:.1e}, {curve[99]:.1e}")
plot.bands_figure(
    at,
    curves,
    x_label="evaluations of loss and gradient",
    y_label="loss above the minimum",
    y_log=True,
    marks=False,
)

# %% [markdown]
# ## Mini-batches of 8
#
# L-BFGS learns curvature from differences of gradients. Between two mini-batches that difference is
# noise, and a line search trusts the loss of eight images. The loss of all 600 is what counts.

# %%
STEPS = 150
seeds = jax.random.split(jax.random.key(1), 5)


def noisy(make):
    def one(key, rate):
        optimizer = make(rate)
        picked = jax.random.randint(key, (STEPS, 8), 0, len(x))

        def step(carry, batch):
            w, state = carry
            value, gradient = jax.value_and_grad(loss)(w, batch)
            updates, state = optimizer.update(
                gradient, state, w, value=value, value_fn=lambda w: loss(w, batch)
            )
            w = optim.apply_updates(w, updates)
            return (w, state), loss(w)

        drawn = (x[picked], y[picked])
        return jax.lax.scan(step, (start, optimizer.init(start)), drawn)[1]

    values = np.asarray(jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(seeds, rates[:6]))
    return above(values[:, np.nan_to_num(values[..., -1], nan=np.inf).mean(0).argmin()])


small = {name: noisy(make) for name, make in makers.items()}
small["L-BFGS"] = noisy(lambda rate: optim.lbfgs())
for name, table in small.items():
    print(f"{name:17} above the minimum after {STEPS} steps: {table[:, -1].mean():.3f}")
plot.bands_figure(
    np.arange(1, STEPS + 1),
    small,
    x_label="step",
    y_label="loss above the minimum, 5 seeds",
    y_log=True,
)

# %% [markdown]
# The same method on the same problem: in full batch it is at float32's limit while the first-order
# methods are still on their way; on mini-batches it stays where it was after ten steps. What
# decides is whether two gradients in a row are gradients of the same function.

# %%
# The claims, as assertions.
first_order = [curve for name, curve in curves.items() if name != "L-BFGS"]
assert curves["L-BFGS"][39] < 0.01 * min(curve[39] for curve in first_order)
assert curves["L-BFGS"][99] < 0.1 * min(curve[99] for curve in first_order)
best = min(table[:, -1].mean() for name, table in small.items() if name != "L-BFGS")
assert small["L-BFGS"][:, -1].mean() > 2 * best
