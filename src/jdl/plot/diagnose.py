"""The picture of `jdl check`: layers by depth, rates, and the first steps of training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jdl.plot.style import FAINT, INK, PALETTE, new_figure, styled

_LAYERS = 12  # that have a histogram of their own


def check_figure(report: Any) -> Any:
    """Draws what `diagnose.examine` saw, in four panels.

    What every layer gives before training (a histogram each, from the input
    down); how the signal spreads forward and the gradient arrives backward; the
    loss that each rate reaches, with the suggested interval; and the loss of a short run
    at the trial's rate, on batches and on a few examples.

    Args:
      report: of `diagnose.examine`.

    Returns:
      The matplotlib figure.
    """
    with styled():
        figure = new_figure(11.0, 7.4)
        grid = figure.add_gridspec(2, 2)
        _histograms(figure.add_subplot(grid[0, 0]), report["activation_statistics"].figures)
        _depth(figure.add_subplot(grid[0, 1]), report)
        _rates(figure.add_subplot(grid[1, 0]), report)
        _steps(figure.add_subplot(grid[1, 1]), report)
        return figure


def _histograms(axes: Any, figures: dict[str, Any]) -> None:
    layers = figures["layers"]
    names = [*layers]
    if len(names) > _LAYERS:  # the first, the last, and others evenly between
        picked = np.unique(np.linspace(0, len(names) - 1, _LAYERS).round().astype(int))
        names = [names[i] for i in picked]
    limit = 0.0
    for row, name in enumerate(names):
        layer = layers[name]
        edges, counts = np.asarray(layer["edges"]), np.asarray(layer["counts"])
        if not np.isfinite(edges).all():
            continue
        height = 0.85 * np.sqrt(counts / max(counts.max(), 1))
        color = PALETTE[0] if "dead" in layer or "saturated" in layer else FAINT
        color = PALETTE[2] if name == "input" else color
        axes.stairs(height - row, edges, baseline=-row, fill=True, color=color, alpha=0.75)
        limit = max(limit, 3.5 * float(layer["std"]) + abs(float(layer["mean"])))
        said = [f"{layer[k]:.0%} {k}" for k in ("dead", "saturated") if k in layer]
        if said:
            axes.text(
                1.0,
                0.35 - row,
                said[0],
                transform=axes.get_yaxis_transform(),
                ha="right",
                fontsize=8.5,
                color=PALETTE[1] if layer.get("dead", layer.get("saturated")) > 0.25 else FAINT,
            )
    axes.set_yticks([0.2 - row for row in range(len(names))], names)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(-len(names) + 0.9, 1.05)
    if limit > 0 and math.isfinite(limit):
        axes.set_xlim(-limit, limit)
    axes.set_xlabel("value (height: square root of the count)")
    axes.set_title("What each layer gives before training")


def _depth(axes: Any, report: Any) -> None:
    layers = report["activation_statistics"].figures["layers"]
    arriving = report["gradient_statistics"].figures["arriving"]
    names = [*layers]
    for label, values, color, marker in (
        (
            "forward: spread over examples",
            {n: float(layer["spread"]) for n, layer in layers.items()},
            PALETTE[0],
            "o",
        ),
        ("backward: gradient that arrives", arriving, PALETTE[1], "s"),
    ):
        shown = [(names.index(n), v) for n, v in values.items() if n in names and v > 0]
        if shown:
            x, y = zip(*shown)
            axes.plot(x, y, marker=marker, color=color, label=label)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    middle = math.sqrt(low * high) if low > 0 and math.isfinite(high) else 1.0
    if high / low < 100:  # on less, a factor of two looks like a collapse
        axes.set_ylim(middle / 10, middle * 10)
    step = max(1, len(names) // 12)
    crowded = len(names) > 6
    axes.set_xticks(
        range(0, len(names), step),
        names[::step],
        rotation=35 if crowded else 0,
        ha="right" if crowded else "center",
    )
    axes.legend(loc="best")
    axes.set_title("Signal and gradient by depth (log scale)")


def _rates(axes: Any, report: Any) -> None:
    figures = report["learning_rate_range"].figures
    rates, scores = np.asarray(figures["rates"]), np.asarray(figures["scores"], float)
    start = figures["first_loss"]
    bad = ~np.isfinite(scores) | (scores > 3 * start)
    if "low" in figures:
        half = math.sqrt(rates[1] / rates[0])
        axes.axvspan(
            figures["low"] / half, figures["high"] * half, color=PALETTE[2], alpha=0.15, lw=0
        )
    axes.plot(rates[~bad], scores[~bad], "o-", color=PALETTE[0])
    axes.set_xscale("log")
    axes.set_xlim(rates[0] / 1.5, rates[-1] * 1.5)
    where = axes.get_xaxis_transform()
    if bad.any():
        axes.plot(
            rates[bad],
            np.full(bad.sum(), 0.97),
            "x",
            color=PALETTE[1],
            transform=where,
            clip_on=False,
            label="diverged",
        )
    if math.isfinite(start):
        axes.axhline(
            start, color=FAINT, linestyle=(0, (4, 3)), linewidth=1, label="before training"
        )
    axes.axvline(report.rate, color=INK, linestyle=(0, (1.5, 1.5)), linewidth=1.2, label="yours")
    axes.legend(loc="lower left")
    positive = scores[~bad]
    if positive.size and positive.min() > 0 and positive.max() / positive.min() > 20:
        axes.set_yscale("log")
    steps = report.runs.losses.shape[-1]
    unit = ", times yours" if report.unit else ""
    axes.set_xlabel(f"learning rate{unit} (log scale)")
    axes.set_ylabel(f"training loss after {steps} steps")
    axes.set_title("Which rates train" + (": shaded, suggested" if "low" in figures else ""))


def _steps(axes: Any, report: Any) -> None:
    runs = report.runs
    at = len(runs.rates) // 2
    loss = runs.losses[at].mean(0)
    steps = np.arange(1, len(loss) + 1)
    axes.plot(steps, loss, color=PALETTE[0], alpha=0.3, linewidth=1)
    width = max(1, len(loss) // 20)
    smooth = np.convolve(loss, np.ones(width) / width, "valid")
    axes.plot(steps[width - 1 :], smooth, color=PALETTE[0], label="batches, at your rate")
    held = runs.held["loss"][at].mean(0)
    chunks = np.linspace(0, len(loss), len(held))
    axes.plot(chunks, held, "o", color=PALETTE[1], label="held-out examples")
    figures = report["overfit_small_batch"].figures
    best = int(np.argmin(np.abs(report.few.rates - figures["rate"])))
    few = np.maximum(report.few.losses[best].mean(0), 1e-6)
    axes.plot(
        steps, few, color=PALETTE[2], label=f"{figures['examples']} examples, at the best rate"
    )
    shown = [a[np.isfinite(a) & (a > 0)] for a in (loss, held, few)]
    lowest = min((a.min() for a in shown if a.size), default=1.0)
    highest = max((a.max() for a in shown if a.size), default=1.0)
    axes.set_yscale("log")
    axes.set_ylim(max(lowest / 1.5, 1e-3 * min(highest, 10.0)), highest * 1.5)
    chance = report["read_curve"].figures.get("chance")
    if chance:
        axes.axhline(chance, color=FAINT, linestyle=(0, (4, 3)), linewidth=1)
        axes.text(
            1.0,
            chance,
            "knowing nothing",
            transform=axes.get_yaxis_transform(),
            color=FAINT,
            fontsize=8.5,
            ha="right",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
    axes.set_xlabel("step")
    axes.set_ylabel("loss (log scale)")
    axes.legend(loc="best")
    axes.set_title("The first steps")
