"""The options that commands share, grouped as in the help."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import tyro


def arg(metavar: str, hint: str | None = None) -> Any:
    """An option that shows `metavar` for its value and, for a default of None, `hint`."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint)


@dataclasses.dataclass(frozen=True)
class Task:
    """The model, the data and the length of training.

    Attributes:
      data: digits (shipped), mnist, fashion_mnist, cifar10, cifar100 (in the folder that the
        environment variable JDL_DATA_DIR names), or a file: x.npz with arrays x and y, x.csv, or
        x.txt, whose next bytes a transformer or lstm learns to predict.
      task: whether the last column of a .csv file holds classes or the numbers of a regression.
      raw: do not scale the inputs to zero mean and unit variance over the training split.
      model: mlp, linear or vit; transformer or lstm for text; autoencoder, which needs only inputs.
      hidden: sizes of the MLP's hidden layers, or of an autoencoder's down to its code.
      activation: of the MLP: relu, tanh, sigmoid, gelu, silu, elu, selu, leaky_relu, softplus.
      batch_norm: batch norm before each activation of the MLP.
      dropout: rate, in [0, 1).
      l2: strength of an L2 penalty on the weights.
      epochs: passes over the training split.
      batch_size: examples in a training step.
    """

    data: Annotated[str, arg("NAME|FILE")] = "digits"
    task: Annotated[
        Literal["classification", "regression"] | None, arg("NAME", "(default: told from it)")
    ] = None
    raw: bool = False
    model: Annotated[str, arg("NAME")] = "mlp"
    hidden: Annotated[tuple[int, ...] | None, arg("SIZE ...", "(default: 64)")] = None
    activation: Annotated[str | None, arg("NAME", "(default: relu)")] = None
    batch_norm: bool = False
    dropout: Annotated[float | None, arg("RATE", "(default: none)")] = None
    l2: Annotated[float | None, arg("STRENGTH", "(default: none)")] = None
    epochs: Annotated[int, arg("N")] = 20
    batch_size: Annotated[int, arg("N")] = 32
