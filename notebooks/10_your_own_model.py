# %% [markdown]
# # Your own model
#
# **Claim.** A sweep asks three pure functions of a trial, so any model fits: plain functions, flax,
# equinox.
#
# flax and equinox come with the `notebooks` extra; jdl itself imports neither.

# %%
# %matplotlib inline
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np

from jdl import data, losses, optim, plot, sweep
from jdl.train import Trial

digits = data.digits()
space = {"lr": sweep.log_grid(1e-4, 1e-1, 7), "seed": sweep.seeds(3)}


def trial_of(init, apply, learning_rate):
    """A classifier from `init(key) -> params` and `apply(params, x) -> logits`."""
    optimizer = optim.adam(learning_rate)

    def loss(params, batch):
        return losses.softmax_cross_entropy(apply(params, batch[0]), batch[1]).mean()

    def start(key, batch):
        params = init(key)
        return params, optimizer.init(params)

    def step(state, batch, key):
        params, opt_state = state
        value, gradients = jax.value_and_grad(loss)(params, batch)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return (optim.apply_updates(params, updates), opt_state), {"loss": value}

    def evaluate(state, batch):
        right = apply(state[0], batch[0]).argmax(1) == batch[1]
        return {"loss": loss(state[0], batch), "accuracy": jnp.mean(right)}

    return Trial(start, step, evaluate)


def swept(make_trial):
    results = sweep.run(make_trial, space, digits, epochs=4, progress=False)
    table = np.full((3, 7), np.nan)
    rates = list(space["lr"].points)
    for t in results.trials:
        table[t.config["seed"], rates.index(t.config["lr"])] = t.metrics["valid_accuracy"]
    print(
        f"{len(results.trials)} trials, {results.programs} program, best test accuracy "
        f"{results.best.metrics['test_accuracy']:.3f}"
    )
    return table


# %% [markdown]
# ## Plain functions


# %%
def init(key):
    one, two = jax.random.split(key)
    return {
        "in": jax.random.normal(one, (64, 32)) / 8,
        "out": jax.random.normal(two, (32, 10)) / 6,
    }


def apply(params, x):
    return jnp.tanh(x @ params["in"]) @ params["out"]


tables = {"plain functions": swept(lambda hp: trial_of(init, apply, hp["lr"]))}

# %% [markdown]
# ## flax

# %%
if importlib.util.find_spec("flax") is None:
    print("flax is not installed; this cell is skipped.")
else:
    from flax import linen

    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(10)(linen.relu(linen.Dense(32)(x)))

    model = Model()
    tables["flax"] = swept(
        lambda hp: trial_of(lambda key: model.init(key, jnp.zeros((1, 64))), model.apply, hp["lr"])
    )

# %% [markdown]
# ## equinox
#
# An equinox model is a tree of arrays and of things that are none; `partition` takes them apart.

# %%
if importlib.util.find_spec("equinox") is None:
    print("equinox is not installed; this cell is skipped.")
else:
    import equinox as eqx

    def build(key):
        return eqx.nn.MLP(64, 10, 32, 1, key=key)

    fixed = eqx.partition(build(jax.random.key(0)), eqx.is_array)[1]
    tables["equinox"] = swept(
        lambda hp: trial_of(
            lambda key: eqx.partition(build(key), eqx.is_array)[0],
            lambda params, x: jax.vmap(eqx.combine(params, fixed))(x),
            hp["lr"],
        )
    )

# %%
plot.bands_figure(
    space["lr"].points,
    tables,
    x_label="learning rate",
    y_label="validation accuracy, 3 seeds",
    x_log=True,
)

# %%
# The claim, as an assertion.
assert all(np.median(table, 0).max() > 0.9 for table in tables.values())
