# %% [markdown]
# # Search from coarse to fine
#
# **Claim.** A coarse search of many short runs followed by a fine one finds what a wide search
# misses at equal cost.
#
# Rate and penalty of a network 64-24-10 with momentum, each over eight decades. Cost is counted in
# epochs: **wide** is 24 trials of 4 epochs; **coarse to fine** 48 trials of 1 epoch, then 12 of 4
# around the four best. 96 epochs each. One search is an anecdote, so there are eight of either.

# %%
# %matplotlib inline
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from jdl import data, models, optim, plot, sweep, train
from jdl.plot.style import PALETTE, new_figure, styled

digits = data.digits()
SEARCHES = 8
LOW, HIGH = np.array([-6.0, -6.0]), np.array([2.0, 2.0])


def make_trial(hp):
    return train.classifier(models.mlp((24, 10)), optim.momentum(hp["lr"]), l2=hp["l2"])


def losses_of(points, epochs):
    """The validation loss at each `(log10 rate, log10 penalty)`: one sweep for all searches."""
    flat = points.reshape(-1, 2)
    given = iter([{"lr": 10.0**rate, "l2": 10.0**penalty} for rate, penalty in flat])
    # A search of one's own says what to try: here, a list.
    listed = sweep.Search(
        ask=lambda n: [config for _, config in zip(range(n), given)],
        tell=lambda configs, scores: None,
        name="listed",
    )
    space = {"lr": sweep.log_uniform(1e-7, 1e3), "l2": sweep.log_uniform(1e-7, 1e3)}
    results = sweep.run(
        make_trial,
        space,
        digits,
        search=listed,
        trials=len(flat),
        epochs=epochs,
        metric="valid_loss",
        keep=1,
        progress=False,
    )
    found = [t.metrics["valid_loss"] if t.status == "done" else np.inf for t in results.trials]
    return np.array(found).reshape(points.shape[:-1])


random = np.random.default_rng(0)
wide = random.uniform(LOW, HIGH, (SEARCHES, 24, 2))
coarse = random.uniform(LOW, HIGH, (SEARCHES, 48, 2))
wide_loss, coarse_loss = losses_of(wide, 4), losses_of(coarse, 1)
best = np.take_along_axis(coarse, coarse_loss.argsort(1)[:, :4, None], 1)
low, high = best.min(1) - 0.25, best.max(1) + 0.25
fine = random.uniform(low[:, None], high[:, None], (SEARCHES, 12, 2))
fine_loss = losses_of(fine, 4)

# %%
found_wide, found_fine = wide_loss.min(1), fine_loss.min(1)
print(
    f"best validation loss, mean of {SEARCHES} searches: "
    f"wide {found_wide.mean():.3f}, coarse to fine {found_fine.mean():.3f}"
)
print(f"coarse to fine is better in {np.sum(found_fine < found_wide)} of {SEARCHES}")
good = 0.3
shares = [np.mean(values < good) for values in (wide_loss, fine_loss)]
print(f"trials below {good}: wide {shares[0]:.0%}, fine {shares[1]:.0%}")

# %% [markdown]
# The first search of each kind, and the best loss that either had found after each epoch spent.

# %%
with styled():
    figure = new_figure(8.4, 4.2)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    cap = np.log(10)  # the loss of knowing nothing
    for axes, title, sets in (
        (left, "wide: 24 trials", [(wide[0], wide_loss[0], "o", 4)]),
        (
            right,
            "coarse to fine: 48 and 12",
            [(coarse[0], coarse_loss[0], "o", 1), (fine[0], fine_loss[0], "D", 4)],
        ),
    ):
        for points, values, marker, epochs in sets:
            dots = axes.scatter(
                *10**points.T,
                c=np.minimum(values, cap),
                marker=marker,
                s=36,
                cmap="cividis_r",
                norm=LogNorm(0.1, cap),
                edgecolor="#333333",
                linewidth=0.4,
                label=f"{epochs} epoch{'s' * (epochs > 1)}",
            )
        axes.set(xscale="log", yscale="log", xlabel="learning rate (log scale)", title=title)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    right.add_patch(
        Rectangle(10 ** low[0], *(10 ** high[0] - 10 ** low[0]), fill=False, edgecolor=PALETTE[1])
    )
    left.set_ylabel("L2 penalty (log scale)")
    bar = figure.colorbar(dots, label="validation loss (log scale, cut at that of guessing)")
    bar.set_ticks([0.1, 0.2, 0.5, 1, 2], labels=["0.1", "0.2", "0.5", "1", "2"])
    bar.minorticks_off()
figure


# %%
def so_far(values, epochs):
    return np.repeat(np.minimum.accumulate(values, 1), epochs, 1)


first = so_far(coarse_loss, 1)
then = np.minimum(so_far(fine_loss, 4), first[:, -1:])
plot.bands_figure(
    np.arange(1, 97),
    {"wide": so_far(wide_loss, 4), "coarse to fine": np.concatenate([first, then], 1)},
    x_label="epochs spent",
    y_label=f"best validation loss so far, {SEARCHES} searches",
    quantiles=(0.25, 0.75),
    y_range=(0.1, 1.5),
)

# %% [markdown]
# The 48 short runs come close to what the wide search finds at twice the cost: one epoch is enough
# to tell what is hopeless. The twelve runs around the best then find what 24 wide ones miss.

# %%
# The claim, as assertions.
assert found_fine.mean() < 0.95 * found_wide.mean()
assert np.sum(found_fine < found_wide) >= 0.75 * SEARCHES
