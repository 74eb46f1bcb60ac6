"""A callback that writes reports where TensorBoard reads them."""

from __future__ import annotations

import atexit
import os

from jdl._paths import expanded
from jdl.train.training import Callback, Report


def tensorboard(folder: str | os.PathLike[str]) -> Callback:
    """A callback of `fit` that writes every metric as a scalar, "valid_loss" as "valid/loss".

    Args:
      folder: of the event files, made if it is not there: `tensorboard --logdir FOLDER`.

    Raises:
      ModuleNotFoundError: tensorboardX is not installed (the tensorboard extra).
    """
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "TensorBoard files need tensorboardX: pip install 'jdl[tensorboard]'.", name=error.name
        ) from error
    writer = SummaryWriter(os.fspath(expanded(folder)), flush_secs=2)
    atexit.register(writer.close)

    def write(report: Report) -> None:
        for name, value in report.metrics.items():
            writer.add_scalar(name.replace("_", "/", 1), value, report.step)
        if report.step == report.steps:
            writer.close()  # a later report would open another file

    return write
