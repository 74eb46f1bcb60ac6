# %% [markdown]
# # Babysitting a run
#
# **Claim.** What keeps a network from training shows before it trains: in the loss at the start, in
# what the layers give, in the gradients that arrive, in the rates that lower the loss, and in
# whether a few examples can be learnt by heart.
#
# `diagnose.examine` (on the command line: `jdl check`) looks at all of that. First a healthy
# network, then the same with three faults of the kind that everybody makes once.

# %%
# %matplotlib inline
from jdl import data, diagnose, nn, optim, plot, train

digits = data.digits()
init = nn.initializer


def make_trial(rate, kernel_init=init.he_normal, activation=nn.relu):
    layers = []
    for _ in range(3):
        layers += [nn.dense(32, kernel_init=kernel_init), activation]
    return train.classifier(nn.chain(*layers, nn.dense(10)), optim.sgd(rate))


healthy = diagnose.examine(make_trial, digits, rate=0.1)
print(healthy.verdict, [(found.problem.kind, found.problem.verdict) for found in healthy.problems])
plot.check_figure(healthy)

# %% [markdown]
# ## Weights that are too large, under a sigmoid, at a rate that is too low

# %%
faulty = diagnose.examine(
    lambda rate: make_trial(rate, init.normal(2.0), nn.sigmoid), digits, rate=1e-4
)
print(faulty.verdict)
for found in faulty.problems:
    print(f"- {found.check}: {found.problem.verdict}. {found.problem.advice}")
plot.check_figure(faulty)

# %% [markdown]
# Each fault shows in a panel of its own: more than half of the sigmoids are saturated, the rate
# asked for lies where the curve of rates is still flat, and the loss does not leave that of knowing
# nothing, though sixteen examples at the best rate can be learnt by heart.

# %%
# The claim, as assertions.
assert healthy.verdict != "wrong"
assert faulty.verdict == "wrong"
