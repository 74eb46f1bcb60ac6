"""Checkpoints of arrays that are split over devices, each device's part written by itself."""

from __future__ import annotations

import os
from typing import Any

import jax
from jaxtyping import PyTree

from jdl._paths import expanded
from jdl.engine.checkpoint import CheckpointError


def save_sharded(path: str | os.PathLike[str], arrays: PyTree) -> None:
    """Writes a pytree of `jax.Array` to the folder `path`, without gathering it anywhere.

    Args:
      path: a folder that is not there yet, or one to be replaced.
      arrays: as `Fit.state` after `fit(..., split_state=True)`.

    Raises:
      ModuleNotFoundError: orbax-checkpoint is not installed (the orbax extra).
    """
    checkpointer = _checkpointer()
    checkpointer.save(expanded(path).absolute(), arrays, force=True)
    checkpointer.wait_until_finished()
    checkpointer.close()


def load_sharded(path: str | os.PathLike[str], like: PyTree) -> PyTree:
    """What `save_sharded` wrote, each array placed as the same leaf of `like` is.

    Args:
      path: the folder.
      like: arrays, or `jax.ShapeDtypeStruct`s with a sharding, which may be over
        other devices than those it was saved from.

    Raises:
      FileNotFoundError: there is no such folder.
      CheckpointError: it does not fit `like`.
      ModuleNotFoundError: orbax-checkpoint is not installed.
    """
    folder = expanded(path).absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder of a sharded checkpoint.")

    def abstract(a: Any) -> Any:
        return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding)

    checkpointer = _checkpointer()
    try:
        return checkpointer.restore(folder, jax.tree.map(abstract, like))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(f"{folder} does not fit: {error}") from error
    finally:
        checkpointer.close()


def _checkpointer() -> Any:
    try:
        import orbax.checkpoint
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Sharded checkpoints need orbax: pip install 'jdl[orbax]'.", name=error.name
        ) from error
    return orbax.checkpoint.StandardCheckpointer()
