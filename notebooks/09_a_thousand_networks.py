# %% [markdown]
# # A thousand networks at once
#
# **Claim.** Training a thousand networks is one program, and takes less than the minute that this
# notebook may.
#
# A space of four hyperparameters, 1,000 random trials of five epochs on digits. Numbers are traced:
# whatever the rate, the dropout and the penalty, the program is the same, so there are as many
# programs as optimizers: three.

# %%
# %matplotlib inline
from jdl import data, models, optim, plot, sweep, train

digits = data.digits()


def make_trial(hp):
    model = models.mlp((32, 10), dropout=hp["dropout"])
    return train.classifier(model, optim.by_name(hp["optimizer"])(hp["lr"]), l2=hp["l2"])


space = {
    "optimizer": sweep.choice("momentum", "rmsprop", "adam"),
    "lr": sweep.log_uniform(1e-5, 1.0),
    "dropout": sweep.uniform(0.0, 0.5),
    "l2": sweep.log_uniform(1e-6, 1e-2),
}
results = sweep.run(make_trial, space, digits, trials=1000, epochs=5, keep=16, progress=False)
results

# %%
stats = results.stats
print(f"{len(results.trials)} trials in {stats['seconds']:.0f} s, {results.programs} programs")
for optimizer, layout in results.plans.items():
    print(f"{optimizer}: {layout['reason']}")

# %%
finished = sorted(
    (t for t in results.trials if t.status == "done"), key=lambda t: -t.metrics["valid_accuracy"]
)
print("optimizer      rate  dropout  penalty  validation accuracy")
for t in finished[:5]:
    hp = t.config
    print(
        f"{hp['optimizer']:10} {hp['lr']:8.4f} {hp['dropout']:8.2f} {hp['l2']:8.1g} "
        f"{t.metrics['valid_accuracy']:20.3f}"
    )

# %% [markdown]
# ## Which rate, and how much it matters

# %%
results.plot("lr")

# %%
plot.importance_figure(results)

# %% [markdown]
# ## The sixteen best as one ensemble
#
# Trained networks are lanes already, so they answer together too. The best of a thousand by 180
# validation images is best by luck in part; the average over sixteen depends on that less.

# %%
x, labels = digits.test
said = results.ensemble(16).predictions(x)
single = (said.argmax(-1) == labels).mean(1)
together = (said.mean(0).argmax(-1) == labels).mean()
print(f"test accuracy of the best by validation: {single[0]:.3f}, mean of 16: {single.mean():.3f}")
print(f"their ensemble: {together:.3f}")

# %%
# The claims, as assertions.
assert len(results.trials) == 1000 and len(results.plans) == 3
assert results.stats["seconds"] < 60
assert together >= single.mean()
