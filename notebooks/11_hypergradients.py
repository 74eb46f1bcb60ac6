# %% [markdown]
# # Hypergradients
#
# **Claim.** Training is a function, so the validation loss after it has a derivative by the
# optimizer's numbers, and those can be tuned by gradient descent: one rate, or one for each step.
#
# Softmax regression on 300 digits, 30 steps of full-batch gradient descent.

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import numpy as np

from jdl import data, losses, optim, plot

digits = data.digits()
x, y = (jnp.asarray(a[:300]) for a in digits.train)
valid = tuple(jnp.asarray(a) for a in digits.valid)
STEPS = 30
start = jnp.zeros((64, 10))


def loss(kernel, batch):
    return losses.softmax_cross_entropy(x @ kernel, y).mean()


def valid_loss(kernel):
    return losses.softmax_cross_entropy(valid[0] @ kernel, valid[1]).mean()


# %% [markdown]
# ## The derivative by one rate, beside the curve that it should be the slope of


# %%
def after_training(log_rate):
    return optim.hypergradient(
        lambda h: optim.sgd(jnp.exp(h)),
        log_rate,
        loss,
        valid_loss,
        start,
        jnp.arange(STEPS),
        mode="forward",
    )


log_rates = jnp.log(jnp.logspace(-2, 1.3, 41))
curve = jax.jit(jax.vmap(after_training))(log_rates)
slope = np.gradient(np.asarray(curve.value), np.asarray(log_rates))
print(
    f"largest difference from finite differences: {np.abs(slope - curve.gradient)[1:-1].max():.4f}"
)
plot.bands_figure(
    np.exp(log_rates),
    {"validation loss": curve.value, "its derivative by log rate": curve.gradient},
    x_label="learning rate",
    y_label="after 30 steps",
    x_log=True,
    marks=False,
)

# %% [markdown]
# ## Descending it, for one rate and for thirty


# %%
def tuned(make, numbers, rounds=80, rate=0.2):
    outer = optim.adam(rate)

    def round_(carry, _):
        numbers, state = carry
        h = optim.hypergradient(make, numbers, loss, valid_loss, start, jnp.arange(STEPS))
        updates, state = outer.update(h.gradient, state, numbers)
        return (optim.apply_updates(numbers, updates), state), h.value

    (numbers, _), values = jax.jit(
        lambda n: jax.lax.scan(round_, (n, outer.init(n)), None, length=rounds)
    )(numbers)
    return np.exp(np.asarray(numbers)), np.asarray(values)


first = jnp.log(0.01)
one_rate, by_one = tuned(lambda h: optim.sgd(jnp.exp(h)), first)
each_rate, by_each = tuned(
    lambda h: optim.sgd(lambda step: jnp.exp(h[step])), jnp.full((STEPS,), first)
)
print(f"one rate: {one_rate:.3f}, validation loss {by_one[0]:.3f} -> {by_one[-1]:.3f}")
print(f"a rate for each step: validation loss {by_each[-1]:.3f}")
print(f"best of the 41 rates tried above: {float(curve.value.min()):.3f}")
plot.bands_figure(
    np.arange(1, 81),
    {"one rate": by_one, "a rate for each step": by_each},
    x_label="round",
    y_label="validation loss after 30 steps",
    y_log=True,
    marks=False,
)

# %% [markdown]
# The schedule that comes out starts low, is highest around the eighth step, and settles. What it
# gains over the best constant rate is little: 0.220 instead of 0.230.

# %%
plot.schedules_figure({"one rate": lambda step: one_rate, "learnt": lambda step: each_rate}, STEPS)

# %%
# The claims, as assertions.
assert np.abs(slope - curve.gradient)[1:-1].max() < 0.05
assert by_one[-1] < float(curve.value.min()) + 0.01
assert by_each[-1] < by_one[-1]
