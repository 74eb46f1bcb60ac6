# %% [markdown]
# # Noise, schedules and averages
#
# **Claims.** Mini-batch steps are noisy, and the exponential average smooths them. A rate that
# decays beats a constant one. An average of the parameters beats the last iterate under noise, and
# an ensemble of independently trained networks beats its mean member.

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import numpy as np

from jdl import data, losses, models, optim, plot, sweep, train

digits = data.digits()
x, clean = (jnp.asarray(a) for a in digits.train)
# A fifth of the labels are random, so that the gradients of single images never agree.
random = np.random.default_rng(0)
wrong = random.random(len(x)) < 0.2
y = jnp.asarray(np.where(wrong, random.integers(0, 10, len(x)), clean))
SEEDS = jax.random.split(jax.random.key(0), 8)


def loss(kernel, batch=(x, y)):
    """Softmax regression with a penalty: convex, so that there is one minimum to measure from."""
    error = losses.softmax_cross_entropy(batch[0] @ kernel, batch[1]).mean()
    return error + 5e-3 * jnp.sum(kernel**2)


def batches(key, steps, size):
    picked = jax.random.randint(key, (steps, size), 0, len(x))
    return x[picked], y[picked]


start = jnp.zeros((64, 10))
least = jax.jit(lambda w: optim.minimize(loss, w, gradient_tolerance=1e-6))(start)
print(f"the minimum: {least.value:.4f}, found in {least.iterations} iterations of L-BFGS")

# %% [markdown]
# ## Noise by the size of the batch
#
# Gradient descent at rate 0.03 on batches of 1, 8 and 64: the loss of all images after each step.
# Then how far the gradient of a batch is from that of all images, and what an exponential average
# over the steps leaves of it.


# %%
def descend(optimizer, drawn, every=1):
    def step(carry, batch):
        w, state = carry
        updates, state = optimizer.update(jax.grad(loss)(w, batch), state, w)
        w = optim.apply_updates(w, updates)
        return (w, state), w

    return jax.lax.scan(step, (start, optimizer.init(start)), drawn)[1]


def course(size):
    def one(key):
        return jax.lax.map(loss, descend(optim.sgd(0.03), batches(key, 200, size))) - least.value

    return np.asarray(jax.jit(jax.vmap(one))(SEEDS[:4]))


noisy = {f"batch of {size}": course(size) for size in (1, 8, 64)}
plot.bands_figure(
    np.arange(1, 201), noisy, x_label="step", y_label="loss above the minimum, 4 seeds", y_log=True
)


# %%
def noise(key, size, w=start + 0.05):
    exact = jax.grad(loss)(w)
    return jax.lax.map(lambda b: jax.grad(loss)(w, b) - exact, batches(key, 400, size))


def spread(g):
    return float(jnp.sqrt(jnp.mean(g**2)))


gradients = {size: jax.jit(lambda k, n=size: noise(k, n))(jax.random.key(size)) for size in (8, 32)}
print(f"noise of a batch of 8 over that of 32: {spread(gradients[8]) / spread(gradients[32]):.2f}")


def smooth(sequence, decay):
    average = optim.ema(decay)

    def step(state, g):
        g, state = average.update(g, state)
        return state, g

    return jax.lax.scan(step, average.init(sequence[0]), sequence)[1]


decays = (0.0, 0.5, 0.8, 0.9, 0.95)
left = [spread(smooth(gradients[8], b)[100:]) / spread(gradients[8][100:]) for b in decays]
for b, share in zip(decays, left):
    formula = np.sqrt((1 - b) / (1 + b))
    print(f"decay {b:4}: {share:.3f} of the noise is left; sqrt((1-b)/(1+b)) = {formula:.3f}")

# %% [markdown]
# ## Ten schedules
#
# All but the constant one fall by a factor of 30 or more over 600 steps, on batches of 4; each at
# six rates, eight seeds.

# %%
N = 600
schedules = {
    "constant": optim.constant_schedule,
    "step decay": lambda r: optim.step_decay(r, N / 6, 0.5),
    "exponential": lambda r: optim.exponential_decay(r, N, 0.02),
    "natural exponential": lambda r: optim.natural_exponential_decay(r, 4 / N),
    "1/t": lambda r: optim.inverse_time_decay(r, 50 / N),
    "linear": lambda r: optim.linear_schedule(r, 0.0, N),
    "cosine": lambda r: optim.cosine_decay_schedule(r, N),
    "cosine restarts": lambda r: optim.cosine_restarts(r, N / 7, 2.0),
    "one cycle": lambda r: optim.cosine_onecycle_schedule(N, r),
    "warmup, stable, decay": lambda r: optim.wsd_schedule(r, N // 20, N * 7 // 10, N // 4),
}
plot.schedules_figure({name: make(0.1) for name, make in schedules.items()}, N)

# %%
rates = jnp.array([0.003, 0.01, 0.03, 0.1, 0.3, 1.0])


def ends(make, labels=y, floor=least.value):
    """The loss above the minimum, (seeds, rates)."""

    def one(key, rate):
        picked = jax.random.randint(key, (N, 4), 0, len(x))
        last = descend(optim.sgd(make(rate)), (x[picked], labels[picked]))[-1]
        return loss(last, (x, labels)) - floor

    return np.asarray(jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(SEEDS, rates))


gap = {name: ends(make) for name, make in schedules.items()}
print(
    f"{'loss above the minimum':22}"
    + "".join(f"{r:>9.3g}" for r in np.asarray(rates))
    + "     best"
)
for name, table in gap.items():
    row = table.mean(0)
    print(f"{name:22}" + "".join(f"{v:9.3f}" for v in row) + f"{row.min():9.3f}")
shown = ("constant", "step decay", "1/t", "cosine", "one cycle")
plot.bands_figure(
    rates,
    {name: gap[name] for name in shown},
    x_label="initial (or peak) learning rate",
    y_label="loss above the minimum, 8 seeds",
    x_log=True,
    y_log=True,
)

# %% [markdown]
# A decay pays where noise is what is left: at high rates. At a rate that is too low already the
# constant one wins, since every decay shortens the way still further. Each at its own best rate,
# they differ little: what a schedule buys is that a rate ten times too high does less harm (0.3:
# 0.15 with cosine, 0.64 constant). And with the right labels, which a linear model of 64 pixels
# nearly fits, the noise of a batch dies out with the errors, so that the constant rate wins up to a
# higher rate and at its best gives up little:

# %%
base = jax.jit(lambda w: optim.minimize(lambda w: loss(w, (x, clean)), w))(start).value
right_labels = {name: ends(schedules[name], clean, base) for name in ("constant", "cosine")}
for name, table in right_labels.items():
    print(f"{name:9} with right labels " + "".join(f"{v:8.3f}" for v in table.mean(0)))

# %% [markdown]
# ## Averages of the parameters, and ensembles
#
# A network 64-24-10 with gradient descent at a constant rate on batches of 4, wrong labels among
# them. An exponential average of its parameters is evaluated beside the last iterate, in the same
# lanes; validation and test labels are right.

# %%
members = 16
results = sweep.run(
    lambda hp: train.averaged(
        train.classifier(models.mlp((24, 10)), optim.sgd(0.1)),
        {"ema": optim.parameter_ema(0.99)},
    ),
    {"seed": sweep.seeds(members)},
    digits._replace(train=(np.asarray(x), np.asarray(y))),
    epochs=5,
    batch_size=4,
    report_every=157,
    keep=members,
    progress=False,
)
plot.bands_figure(
    results.steps,
    {
        "last iterate": results.curves("valid_loss"),
        "average, decay 0.99": results.curves("valid_ema_loss"),
    },
    x_label="step",
    y_label=f"validation loss, {members} seeds",
    y_log=True,
)

# %%
inputs, labels = digits.test
said = results.ensemble(members).predictions(inputs)


def likelihood(p):
    return -np.log(np.maximum(p[..., np.arange(len(labels)), labels], 1e-12)).mean(-1)


order = np.random.default_rng(0).permuted(np.tile(np.arange(members), (12, 1)), axis=1)
joint = said[order].cumsum(1) / np.arange(1, members + 1)[:, None, None]
together = likelihood(joint)
right = (said.argmax(-1) == labels).mean(1)
whole = (said.mean(0).argmax(-1) == labels).mean()
last, ema = (np.array([t.metrics[f"test_{n}loss"] for t in results.trials]) for n in ("", "ema_"))
print(f"last iterates: test loss {last.mean():.3f}; their averages: {ema.mean():.3f}")
print(f"members: test accuracy {right.mean():.3f} in the mean, {right.max():.3f} at best")
print(f"all {members} together: {whole:.3f}, test loss {together[0, -1]:.3f}")
plot.bands_figure(
    np.arange(1, members + 1),
    {"ensemble": together},
    x_label="members of the ensemble",
    y_label="test loss, 12 orders",
)

# %%
# The claims, as assertions.
assert 1.8 < spread(gradients[8]) / spread(gradients[32]) < 2.2
assert abs(left[3] - np.sqrt(0.1 / 1.9)) < 0.04
for name, table in gap.items():
    if name != "constant":
        assert table[:, 4].mean() < 0.6 * gap["constant"][:, 4].mean()
        assert table[:, 0].mean() > gap["constant"][:, 0].mean()
assert (right_labels["constant"].mean(0) < right_labels["cosine"].mean(0))[:3].all()
assert ema.mean() < 0.85 * last.mean()
assert whole > right.mean() + 0.01 and together[0, -1] < likelihood(said).mean()
