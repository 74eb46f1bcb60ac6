# %% [markdown]
# # Initialisation, saturation and symmetry
#
# **Claims.** Small initial weights kill activations with depth and large ones saturate tanh; Xavier
# keeps the variance with tanh and loses it with ReLU, He keeps it. Equal weights never separate.
# Saturated sigmoids have vanishing gradients, all-positive inputs force the gradient of a neuron to
# one sign, and a large negative bias kills a ReLU for ever where a leaky one recovers. Deep linear
# networks explode.

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import numpy as np

from jdl import data, diagnose, losses, nn, optim, plot, train

init = nn.initializer
WIDTH, DEPTH, SEEDS = 256, 10, 4
noise = jax.random.normal(jax.random.key(9), (256, WIDTH))
seeds = jax.random.split(jax.random.key(0), SEEDS)


def given(activation, kernel_init, key, depth=DEPTH, x=noise, nudges=None):
    """What every layer of an untrained network gives, drawn and applied one after another."""
    layer = nn.dense(x.shape[-1], kernel_init=kernel_init)

    def step(y, key_and_nudge):
        key, nudge = key_and_nudge
        params, state = layer.init(key, y)
        z = layer.apply(params, state, y)[0]
        y = activation(z if nudge is None else z + nudge)
        return y, y

    return jax.lax.scan(step, x, (jax.random.split(key, depth), nudges))[1]


# %% [markdown]
# ## Activations by depth

# %%
networks = {
    "tanh, weights N(0, 0.01²)": (nn.tanh, init.normal(0.01)),
    "tanh, weights N(0, 1)": (nn.tanh, init.normal(1.0)),
    "tanh, Xavier": (nn.tanh, init.glorot_normal),
    "ReLU, Xavier": (nn.relu, init.glorot_normal),
    "ReLU, He": (nn.relu, init.he_normal),
}
first = {title: jax.jit(lambda k, m=m: given(*m, k))(seeds[0]) for title, m in networks.items()}
plot.depth_figure(first)


# %%
def sizes(activation, kernel_init, depth=DEPTH):
    """The root mean square of what every layer gives, (seeds, layers)."""

    def of(key):
        return jnp.sqrt(jnp.mean(given(activation, kernel_init, key, depth) ** 2, (1, 2)))

    return np.asarray(jax.jit(jax.vmap(of))(seeds))


size = {title: sizes(*model) for title, model in networks.items()}
for title, table in size.items():
    print(f"{title:27} first layer {table[:, 0].mean():.3g}, tenth {table[:, -1].mean():.2g}")
saturated = np.mean(np.abs(np.asarray(first["tanh, weights N(0, 1)"][-1])) > 0.99)
print(f"tanh with weights N(0, 1): {saturated:.0%} of the tenth layer is saturated (above 0.99)")
plot.bands_figure(
    np.arange(1, DEPTH + 1),
    size,
    x_label="layer",
    y_label="root mean square of the activation",
    y_log=True,
)

# %% [markdown]
# ## Deep linear networks
#
# Without a nonlinearity a layer multiplies the signal by the standard deviation of its weights
# times the root of its width, `g`, and `L` layers by `g` to the power `L`.

# %%
gains = (0.7, 1.0, 1.5)
linear = {f"g = {g}": sizes(nn.identity, init.variance_scaling(g * g, "in"), 30) for g in gains}
for g, table in zip(gains, linear.values()):
    print(f"g = {g}: after 30 layers {table[:, -1].mean():.3g}; g**30 = {g**30:.3g}")
plot.bands_figure(
    np.arange(1, 31), linear, x_label="layer", y_label="root mean square", y_log=True, marks=False
)

# %% [markdown]
# ## Gradients through sigmoids
#
# A sigmoid's slope is at most 1/4, and where it is saturated much less.

# %%
z = jnp.linspace(-8, 8, 161)
slope = jax.vmap(jax.grad(nn.sigmoid))(z)
print(f"slope of a sigmoid at 0: {slope[80]:.2f}, at 5: {jax.grad(nn.sigmoid)(5.0):.4f}")
plot.bands_figure(
    z,
    {"value": nn.sigmoid(z), "slope": slope},
    x_label="input",
    y_label="sigmoid and its slope",
    marks=False,
)

# %% [markdown]
# The gradient that arrives at the units of each of six layers, before the activation, which is what
# their weights get.


# %%
def arriving(activation, kernel_init, depth=6, width=32):
    """Root mean square and median of the sizes of that gradient, each (seeds, layers)."""
    x = noise[:, :width]
    weights = jax.random.normal(jax.random.key(7), (width,))

    def of(key):
        def total(nudges):
            return jnp.sum(given(activation, kernel_init, key, depth, x, nudges)[-1] @ weights)

        sizes = jnp.abs(jax.grad(total)(jnp.zeros((depth, len(x), width))))
        return jnp.sqrt(jnp.mean(sizes**2, (1, 2))), jnp.median(sizes, (1, 2))

    return [np.asarray(table) for table in jax.jit(jax.vmap(of))(seeds)]


gradients = {
    "sigmoid, weights N(0, 1/n)": arriving(nn.sigmoid, init.lecun_normal),
    "sigmoid, weights N(0, 3²)": arriving(nn.sigmoid, init.normal(3.0)),
    "tanh, Xavier": arriving(nn.tanh, init.glorot_normal),
    "ReLU, He": arriving(nn.relu, init.he_normal),
}
relative = {name: size / size[:, -1:] for name, (size, _) in gradients.items()}
concentrated = {name: (median / size)[:, 0].mean() for name, (size, median) in gradients.items()}
print("gradient at the first layer over that at the sixth; its median over its root mean square:")
for name, g in relative.items():
    print(f"{name:27} {np.exp(np.log(g[:, 0]).mean()):7.1e} {concentrated[name]:10.3f}")
plot.bands_figure(
    np.arange(1, 7),
    relative,
    x_label="layer",
    y_label="gradient over the last layer's, 4 seeds",
    y_log=True,
)

# %% [markdown]
# With weights of a sound size the gradient through sigmoids falls by a factor of about four a
# layer. Weights that saturate the sigmoids do something else: the same large weights multiply the
# gradient on its way back, so that its root mean square does not vanish. But it lands on the few
# units that happen not to be saturated, and the median unit gets next to nothing. (Half of the
# ReLUs are closed, so that their median is near 0 too.)

# %% [markdown]
# ## All-positive inputs
#
# The gradient by a neuron's weights is the error times the inputs: where all of them are positive,
# all components have the error's sign, and a step can go up in all weights or down in all, but
# never sideways. Centred inputs are free of that. One sigmoid neuron, 200 single examples.

# %%
target = jax.random.bernoulli(jax.random.key(2), 0.5, (200,)).astype(jnp.float32)
normal = jax.random.normal(jax.random.key(3), (200, 8))


def one_sign(x):
    """The share of examples whose gradient has components of one sign only."""
    w = jax.random.normal(jax.random.key(4), (8,))
    gradient = jax.vmap(
        jax.grad(lambda w, x, t: losses.sigmoid_cross_entropy((x @ w)[None], t[None])[0]),
        in_axes=(None, 0, 0),
    )(w, x, target)
    signs = np.sign(np.asarray(gradient))
    return np.mean(np.abs(signs.sum(1)) == 8)


shares = {"positive": one_sign(nn.sigmoid(normal)), "centred": one_sign(normal)}
print({name: f"{share:.0%} of gradients have one sign" for name, share in shares.items()})

# %% [markdown]
# ## Symmetry, and dead units
#
# A network 64-16-10 on digits. Where all weights start equal, all 16 hidden units get the same
# gradient for ever. Where the hidden biases start at -30, no ReLU ever opens; a leaky ReLU has a
# slope on the other side too.

# %%
digits = data.digits()


def trained(activation=nn.relu, kernel_init=init.he_normal, bias=0.0, epochs=8):
    model = nn.chain(
        nn.dense(16, kernel_init=kernel_init, bias_init=init.constant(bias)),
        activation,
        nn.dense(10, kernel_init=kernel_init),
    )
    trial = train.classifier(model, optim.adam(0.01))
    return train.fit(trial, digits, epochs=epochs, progress=False)


cases = {
    "random weights, ReLU": trained(),
    "equal weights, ReLU": trained(kernel_init=init.constant(0.05)),
    "bias -30, ReLU": trained(bias=-30.0),
    "bias -30, leaky ReLU": trained(nn.leaky_relu, bias=-30.0),
}
alive, accuracy = {}, {}
for name, fit in cases.items():
    kernel = np.asarray(fit.params[0]["kernel"])
    hidden = digits.test[0] @ kernel + np.asarray(fit.params[0]["bias"])
    apart = np.std(kernel, axis=1).mean() / np.abs(kernel).mean()
    alive[name] = np.mean((hidden > 0).any(0))
    accuracy[name] = fit.metrics["test_accuracy"]
    print(
        f"{name:21} test accuracy {accuracy[name]:.2f}, hidden units alive {alive[name]:4.0%}, "
        f"spread between units {apart:.2g}"
    )

# %%
x, _ = digits.train


def hidden_of(fit):
    first = fit.params[0]
    return np.asarray(nn.relu(x @ first["kernel"] + first["bias"]))


shown = {name: hidden_of(fit) for name, fit in cases.items() if "leaky" not in name}
plot.depth_figure(
    {name: [h[:, unit] for unit in range(8)] for name, h in shown.items()},
    x_label="activation on the training images",
    row_label="hidden unit",
)

# %% [markdown]
# `jdl check` finds the same before any training:

# %%
flat = init.constant(0.05)
equal = train.classifier(
    nn.chain(nn.dense(16, kernel_init=flat), nn.relu, nn.dense(10, kernel_init=flat)),
    optim.adam(0.01),
)
finding = diagnose.symmetry(equal, (x[:64], digits.train[1][:64]), key=jax.random.key(0))
for problem in finding.problems:
    print(f"{problem.verdict}: {problem.advice}")

# %%
# The claims, as assertions.
assert size["tanh, weights N(0, 0.01²)"][:, -1].max() < 1e-6
assert saturated > 0.7
assert size["tanh, Xavier"][:, -1].min() > 0.2
assert 0.6 < np.mean(size["ReLU, He"][:, -1] / size["ReLU, He"][:, 0]) < 1.5
assert np.mean(size["ReLU, Xavier"][:, -1] / size["ReLU, Xavier"][:, 0]) < 0.1
assert relative["sigmoid, weights N(0, 1/n)"][:, 0].max() < 0.01
assert relative["ReLU, He"][:, 0].min() > 0.2
assert concentrated["sigmoid, weights N(0, 3²)"] < 0.2 < concentrated["sigmoid, weights N(0, 1/n)"]
assert shares["positive"] == 1 and shares["centred"] < 0.05
assert accuracy["equal weights, ReLU"] < 0.5 and accuracy["random weights, ReLU"] > 0.9
assert alive["bias -30, ReLU"] == 0 and accuracy["bias -30, leaky ReLU"] > 0.8
