"""Makes data, models and trials from options and space files."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jdl import data, models, nn, optim, sweep, train
from jdl.cli.options import Task
from jdl.data.named import LOADERS
from jdl.data.text import VOCABULARY
from jdl.optim.names import OPTIMIZERS
from jdl.sweep.dimension import Dimension
from jdl.sweep.space import Space, combinations, configuration, parse_space

ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "relu": nn.relu,
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "elu": nn.elu,
    "selu": nn.selu,
    "leaky_relu": nn.leaky_relu,
    "softplus": nn.softplus,
}


class Model(NamedTuple):
    """A model that a command line can name.

    Attributes:
      build: makes a layer from the number of outputs and the hyperparameters.
      structure: the hyperparameters that change its program.
      numbers: the hyperparameters that are traced.
      images: whether it needs inputs of shape (height, width, channels).
      family: "text" or "autoencoder" if it is trained in a way of its own.
    """

    build: Callable[..., nn.Layer]
    structure: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    images: bool = False
    family: str = ""


def _mlp(
    outputs: int,
    hidden: Any = "64",
    activation: str = "relu",
    batch_norm: bool = False,
    dropout: Any = None,
) -> nn.Layer:
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"`activation` must be one of {', '.join(ACTIVATIONS)}, got {activation!r}."
        )
    return models.mlp(
        (*_sizes(hidden), outputs),
        activation=ACTIVATIONS[activation],
        batch_norm=batch_norm,
        dropout=dropout,
    )


def _linear(outputs: int) -> nn.Layer:
    return models.mlp((outputs,))


def _autoencoder(outputs: int, hidden: Any = "32x8", activation: str = "relu") -> nn.Layer:
    sizes = _sizes(hidden)
    return _mlp(outputs, "x".join(map(str, (*sizes, *sizes[-2::-1]))), activation)


def _transformer(outputs: int, length: int, **options: Any) -> nn.Layer:
    small = {"depth": 2, "features": 64, "heads": 4}
    return models.transformer(outputs, length=length, **(small | options))


def _lstm(outputs: int, length: int, features: int = 128) -> nn.Layer:
    return nn.chain(nn.embedding(outputs, features), nn.lstm(features), nn.dense(outputs))


MODELS = {
    "mlp": Model(_mlp, ("hidden", "activation", "batch_norm"), ("dropout",)),
    "linear": Model(_linear),
    "vit": Model(models.vit, ("patch", "depth", "features", "heads"), ("dropout",), True),
    "transformer": Model(_transformer, ("depth", "features", "heads"), ("dropout",), family="text"),
    "lstm": Model(_lstm, ("features",), family="text"),
    "autoencoder": Model(_autoencoder, ("hidden", "activation"), family="autoencoder"),
}
_TRIAL = ("l2", "label_smoothing")
_OWN = ("optimizer", "lr", "seed", "model")


def _sizes(hidden: Any) -> tuple[int, ...]:
    """Layer sizes from "128x64", as tables show them, or from numbers.

    >>> _sizes("128x64"), _sizes(32)
    ((128, 64), (32,))
    """
    parts = str(hidden).split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(
            f"`hidden` must be a size of at least 1, or several as in '128x64', got {hidden!r}."
        )
    return tuple(map(int, parts))


class Outputs(NamedTuple):
    """What the data require: output size, whether it is classes or tokens, an example's shape."""

    size: int
    classes: bool
    tokens: bool
    example: tuple[int, ...]


def make_trial(hp: Mapping[str, Any], outputs: Outputs) -> train.Trial:
    """The trial of a configuration of `model`, `optimizer`, `lr` and their arguments, by name."""
    model = MODELS[hp["model"]]
    taken = {name: hp[name] for name in (*model.structure, *model.numbers) if name in hp}
    if outputs.tokens != (model.family == "text"):
        raise ValueError(
            f"The model {hp['model']} is {'not ' * outputs.tokens}for text. `--model` must be one "
            f"of {', '.join(n for n in MODELS if (MODELS[n].family == 'text') == outputs.tokens)}."
        )
    if model.family == "text":
        layer = model.build(outputs.size, length=outputs.example[0], **taken)
    elif model.family == "autoencoder":
        layer = model.build(math.prod(outputs.example), **taken)
    else:
        layer = model.build(outputs.size, **taken)
    rest = {name: value for name, value in hp.items() if name not in (*taken, *_TRIAL, *_OWN)}
    optimizer = optim.by_name(hp["optimizer"])(hp["lr"], **rest)
    penalties = {name: hp[name] for name in _TRIAL if name in hp}
    if model.family == "text":
        return train.language_model(layer, optimizer, **penalties)
    if model.family == "autoencoder":
        return train.autoencoder(layer, nn.identity, optimizer, **penalties)
    if outputs.classes:
        return train.classifier(layer, optimizer, **penalties)
    return train.regressor(layer, optimizer, **penalties)


def trial_maker(dataset: data.Dataset) -> Callable[[dict[str, Any]], train.Trial]:
    """`make_trial` for the labels or targets of `dataset`."""
    y = np.asarray(dataset.train[1])
    classes = y.ndim == 1 and bool(np.issubdtype(y.dtype, np.integer))
    tokens = y.ndim == 2 and y.dtype == np.uint8
    count = data.classes(dataset) if classes else math.prod(y.shape[1:])
    outputs = Outputs(VOCABULARY if tokens else count, classes, tokens, dataset.train[0].shape[1:])
    return functools.partial(make_trial, outputs=outputs)


def model_space(task: Task) -> dict[str, Any]:
    """The model options of `task`, as values of a space."""
    given = {
        "hidden": None if task.hidden is None else "x".join(map(str, task.hidden)),
        "activation": task.activation,
        "batch_norm": task.batch_norm or None,
        "dropout": task.dropout,
        "l2": task.l2,
    }
    if task.model == "mlp" and given["hidden"] is None:
        given["hidden"] = "64"
    return {"model": task.model} | {n: v for n, v in given.items() if v is not None}


def sweep_space(
    task: Task,
    *,
    lr: tuple[float, float, int],
    optimizers: Sequence[str],
    seeds: int,
    file: Any,
    drawn: bool,
) -> Space:
    """The space of the options and the space file, checked.

    Args:
      task: the data, the model and its numbers.
      lr: the lowest and the highest rate, and how many a grid has.
      optimizers: their names.
      seeds: how many.
      file: the space file, or None.
      drawn: whether rates are drawn and not taken from a grid.

    Raises:
      ValueError: a name or a number is not allowed; the message names it.
      OSError: the file cannot be read.
    """
    low, high, count = lr
    if not 0 < low <= high < math.inf:
        raise ValueError(
            f"`--lr` takes LOW HIGH COUNT with 0 < LOW < HIGH, got {low:g} {high:g} {count}."
            + (" The bounds are reversed." if low > high > 0 else "")
        )
    rates = sweep.log_uniform(low, high) if drawn and low < high else _rates(low, high, count)
    if not optimizers:
        raise ValueError("`--optimizers` needs at least one name, got none.")
    if seeds < 1:
        raise ValueError(f"`--seeds` must be at least 1, got {seeds}.")
    space = {
        **model_space(task),
        "optimizer": sweep.choice(*optimizers),
        "lr": rates,
    }
    if file is not None:
        space = dict(sweep.from_toml(str(file), space))
    space.setdefault("seed", sweep.seeds(seeds))
    parsed = {name: _static(name, d) for name, d in parse_space(space).items()}
    check_names(parsed)
    return parsed


def _rates(low: float, high: float, count: int) -> Any:
    return low if low == high else sweep.log_grid(low, high, count)


def _static(name: str, dimension: Dimension) -> Dimension:
    """`dimension`, made static if its name is known to change the program."""
    structural = {"model", "optimizer", *(n for m in MODELS.values() for n in m.structure)}
    if name not in structural:
        return dimension
    if dimension.points is None:
        raise ValueError(
            f"`{name}` changes the program, so it needs finitely many values, as in "
            f"{{choice = [...]}}, got {dimension.kind}({dimension.arguments})."
        )
    points = dimension.points
    if name == "hidden":
        points = tuple("x".join(map(str, p)) if isinstance(p, tuple) else str(p) for p in points)
        for point in points:
            _sizes(point)
    return sweep.choice(*points, static=True)._replace(when=dimension.when)


def check_names(space: Space) -> None:
    """Raises ValueError for a name that nothing in the space takes, or for an invalid value."""
    for name, known in (("optimizer", OPTIMIZERS), ("model", MODELS)):
        for point in space[name].points or ():
            if point not in known:
                raise ValueError(f"`{name}` must be one of {', '.join(known)}, got {point!r}.")
    if space["seed"].kind != "seeds":
        raise ValueError("`seed` must be written {seeds = COUNT}.")
    chosen = [str(point) for point in space["model"].points or ()]
    for model in chosen:
        fields = (*MODELS[model].structure, *MODELS[model].numbers)
        others = {n for m in MODELS.values() for n in (*m.structure, *m.numbers)} - {*fields}
        if wrong := others & {*space}:
            raise ValueError(
                f"The model {model} takes no `{min(wrong)}`; it takes "
                f"{', '.join(fields) or 'nothing'}."
            )
    models_take = {n for m in chosen for n in (*MODELS[m].structure, *MODELS[m].numbers)}
    for name in space:
        if name in (*_OWN, *_TRIAL) or name in models_take:
            continue
        chosen_for = dict(space[name].when).get("optimizer", space["optimizer"].points or ())
        for optimizer in map(str, chosen_for):
            takes = [*inspect.signature(OPTIMIZERS[optimizer]).parameters][1:]
            if name not in takes:
                raise ValueError(
                    f"`{name}` is not a hyperparameter of the model or the trial, and {optimizer} "
                    f"takes {', '.join(takes) or 'nothing but its rate'}."
                )


def load(task: Task, space: Space) -> data.Dataset:
    """The data set that `task` names, in the shape that the space's models take.

    Raises:
      ValueError: no data set has that name.
      OSError: its files are missing.
    """
    name = task.data
    if task.task is not None:
        if not name.endswith((".csv", ".csv.gz")):
            raise ValueError(f"`--task` is of a .csv file, got --task {task.task} with {name!r}.")
        return data.csv(name, task=task.task, standardize=not task.raw)
    if name.endswith((".txt", ".txt.gz")):
        return data.text(name)
    file = name.endswith((".npz", ".csv", ".csv.gz"))
    if not file and name.lower().replace("_", "-") not in LOADERS:
        raise ValueError(
            f"`--data` must be one of {', '.join(LOADERS)}, or a file that ends in .npz, .csv "
            f"or .txt, got {name!r}."
        )
    images = any(MODELS[str(model)].images for model in space["model"].points or ())
    shape = {"image": True} if images and name == "digits" else {}
    return data.by_name(name)(standardize=not task.raw, **shape)


def check(
    make_trial: Callable[[dict[str, Any]], train.Trial],
    space: Space,
    dataset: data.Dataset,
    task: Task,
    trials: int | None,
) -> None:
    """Raises ValueError for what a run would refuse, before anything is printed or written."""
    for name, value in (("epochs", task.epochs), ("trials", trials)):
        if value is not None and value < 1:
            raise ValueError(f"`--{name}` must be at least 1, got {value}.")
    data.steps_per_epoch(len(dataset.train[0]), task.batch_size)
    middle = {name: d.points[0] if d.points else d.at(0.5) for name, d in space.items()}
    make_trial(configuration(space, middle.__getitem__))


def chance(dataset: data.Dataset) -> float | None:
    """The accuracy of always naming the commonest class; None if targets are not classes."""
    _, y = dataset.valid or dataset.train
    labels = np.asarray(y)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return None
    return float(np.bincount(labels).max() / len(labels))


def describe(
    task: Task, dataset: data.Dataset, space: Space, trials: int | None, drawn: str = "random"
) -> str:
    """Describes a sweep before it runs: the trials of `space`, or `trials` that are `drawn`."""
    points = {n: len(d.points) for n, d in space.items() if d.points is not None}
    axes = {n: count for n, count in points.items() if count > 1}
    free = [n for n, d in space.items() if d.points is None]
    if trials is None:
        plurals = {"lr": "rates", "optimizer": "optimizers", "seed": "seeds", "model": "models"}
        counts = " x ".join(
            f"{count} {plurals.get(name, f'values of {name}')}" for name, count in axes.items()
        )
        total = sum(1 for _ in combinations(space))
        how = f"{total:,} trials: {counts or 'one configuration'}."
    else:
        varied = [name for name in space if name in (*axes, *free) and name != "seed"]
        each = f"{points['seed']} seed{'s' * (points['seed'] != 1)} of each"
        how = f"{trials:,} trials: {drawn} {', '.join(varied)}; {each}."
    return f"{how}\n{_describe_task(task, dataset, space)}"


def describe_one(task: Task, dataset: data.Dataset, space: Space) -> str:
    """Describes a single run before it starts."""
    optimizer, rate = ((space[name].points or ("",))[0] for name in ("optimizer", "lr"))
    return f"{_describe_task(task, dataset, space)} {optimizer} at rate {rate:g}."


def _describe_task(task: Task, dataset: data.Dataset, space: Space) -> str:
    sizes = [f"{len(split[0]):,} {name}" for name, split in dataset._asdict().items() if split]
    model = " or ".join(str(point) for point in space["model"].points or ())
    hidden = space["hidden"].points if "hidden" in space else None
    model += f" with hidden {hidden[0]}" if hidden and len(hidden) == 1 else ""
    return (
        f"{model} on {task.data} ({', '.join(sizes)}), {task.epochs} epochs, batches of "
        f"{task.batch_size}."
    )
