"""Exports a sweep to TensorBoard's HParams tab."""

from __future__ import annotations

import math
import os
import pathlib
from typing import Any

from jdl._paths import expanded


def export_hparams(
    results: Any, folder: str | os.PathLike[str], most: int | None = None
) -> pathlib.Path:
    """Writes each trial as a run of TensorBoard (needs the tensorboard extra).

    `tensorboard --logdir FOLDER` then compares them in its HParams tab, and
    shows every reported metric as a scalar, "valid_loss" as "valid/loss". Each
    trial has its own folder there, so a large sweep makes many files; `most`
    limits them to the best trials. Missing hyperparameters are left out.

    Args:
      results: of a sweep, finished or running.
      folder: of the runs, created if it does not exist.
      most: how many of the best trials to write; None for all.

    Returns:
      The folder.

    Raises:
      ModuleNotFoundError: tensorboardX is not installed.
      ValueError: `most` is below 1.
    """
    try:
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "TensorBoard files need tensorboardX: pip install 'jdl[tensorboard]'.", name=error.name
        ) from error
    if most is not None and most < 1:
        raise ValueError(f"`most` must be at least 1, got most={most}.")
    where = expanded(folder)
    names = [name for name in results.trials[0].metrics if name in results.curve_names]
    for trial in sorted(results.trials, key=results.score, reverse=True)[:most]:
        writer = SummaryWriter(os.fspath(where / f"{trial.trial:06d}"))
        config = {
            k: v if isinstance(v, bool | int | float) else str(v) for k, v in trial.config.items()
        }
        final = {k: v for k, v in trial.metrics.items() if math.isfinite(v)}
        for summary in hparams(config | {"status": trial.status}, dict.fromkeys(final, 0.0)):
            writer.file_writer.add_summary(summary)
        for name in names:
            for step, value in zip(results.steps, results.curves(name)[trial.trial]):
                if math.isfinite(value):
                    writer.add_scalar(name.replace("_", "/", 1), value, int(step))
        for name, value in final.items():
            writer.add_scalar(name, value, trial.steps)
        writer.close()
    return where
