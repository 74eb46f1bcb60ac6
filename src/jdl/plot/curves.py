"""One run's picture: loss and the metric it is judged by, report by report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jdl.plot.style import FAINT, PALETTE, new_figure, styled
from jdl.sweep.points import words

_SPLITS = {"train": PALETTE[0], "valid": PALETTE[1], "test": PALETTE[2]}


def curves_figure(
    steps: Any, curves: Mapping[str, Any], best_step: int | None = None, per_epoch: int = 0
) -> Any:
    """Draws every curve of one training run, one panel for each kind of metric.

    Args:
      steps: the training step of each report.
      curves: by name, as "train_loss" and "valid_loss", one value a report.
      best_step: the step whose state was kept, marked by a line.
      per_epoch: steps of an epoch, to count the axis in epochs; 0 for steps.

    Returns:
      The matplotlib figure.
    """
    kinds = list(dict.fromkeys(name.split("_", 1)[-1] for name in sorted(curves, reverse=True)))
    x = np.asarray(steps) / (per_epoch or 1)
    with styled():
        figure = new_figure(4.2 * len(kinds), 3.4)
        for panel, kind in enumerate(kinds):
            axes = figure.add_subplot(1, len(kinds), panel + 1)
            for name in (name for name in curves if name.split("_", 1)[-1] == kind):
                split = name.split("_", 1)[0]
                marker = "o" if len(x) < 3 else None
                color = _SPLITS.get(split, PALETTE[-1])
                axes.plot(x, curves[name], color=color, label=words(name), marker=marker)
            if best_step:
                at = best_step / (per_epoch or 1)
                axes.axvline(at, color=FAINT, linestyle=(0, (4, 3)), linewidth=1, label="kept")
            finite = np.concatenate([np.asarray(curves[n]) for n in curves if n.endswith(kind)])
            finite = finite[np.isfinite(finite)]
            if kind == "loss" and finite.size and finite.min() > 0:
                axes.set_yscale("log")
            axes.set_xlabel("epoch" if per_epoch else "step")
            axes.set_ylabel(kind.replace("_", " "))
            axes.legend()
        return figure
