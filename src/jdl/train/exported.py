"""A trained network as one file that needs JAX alone: no model code, no jdl."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jdl._paths import expanded
from jdl.engine.checkpoint import CheckpointError, write_atomically
from jdl.engine.trial import Trial
from jdl.train.predict import predictor

PLATFORMS = ("cpu", "cuda", "tpu")


def export(
    path: str | os.PathLike[str],
    trial: Trial,
    state: PyTree,
    x: Any,
    *,
    platforms: Sequence[str] = PLATFORMS,
) -> None:
    """Writes `trial.predict` with the numbers of `state` inside, lowered for several platforms.

    The number of examples stays open. Where only JAX is installed:

        jax.export.deserialize(bytearray(open(path, "rb").read())).call(x)

    Args:
      path: the file.
      trial: which made the state.
      state: as `Fit.state`.
      x: a batch, or its `jax.ShapeDtypeStruct`, for the shape of an example and the dtype.
      platforms: where it should run.

    Raises:
      ValueError: the trial has no `predict`.
      ModuleNotFoundError: flatbuffers is not installed (the export extra).
    """
    run = predictor(trial)
    _need_flatbuffers()
    state = jax.tree.map(lambda a: jnp.asarray(a) if isinstance(a, np.ndarray) else a, state)
    (batch,) = jax.export.symbolic_shape("batch")
    like = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)
    exported = jax.export.export(jax.jit(lambda x: run(state, x)), platforms=platforms)(like)
    write_atomically(expanded(path), bytes(exported.serialize()))


def load_exported(path: str | os.PathLike[str]) -> Callable[[Any], Any]:
    """The function of a batch that `export` wrote to `path`.

    Raises:
      CheckpointError: the file holds none.
      ModuleNotFoundError: flatbuffers is not installed.
    """
    _need_flatbuffers()
    blob = expanded(path).read_bytes()
    try:
        return jax.jit(jax.export.deserialize(bytearray(blob)).call)
    except Exception as error:
        # The reader of the format has no error of its own: it fails wherever it stumbles.
        raise CheckpointError(
            f"{os.fspath(path)} holds no exported network: {type(error).__name__} {error}"
        ) from error


def _need_flatbuffers() -> None:
    if importlib.util.find_spec("flatbuffers") is None:
        raise ModuleNotFoundError(
            "Exported networks need flatbuffers: pip install 'jdl[export]'.", name="flatbuffers"
        )
