"""The layout of a run: batches split over devices, parameters on all of them or split too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from jdl.engine.devices import lane_mesh

SPLIT_ABOVE = 2**14  # elements; below this, gathering costs more than replicating


class Layout(NamedTuple):
    """Devices in a row, over which the examples of every batch are split.

    Attributes:
      mesh: of one axis, "batch".
      split_state: whether large arrays of the state are split as well.
    """

    mesh: Mesh
    split_state: bool

    @property
    def everywhere(self) -> NamedSharding:
        """A copy on every device."""
        return NamedSharding(self.mesh, P())

    def batches(self, axis: int = 0) -> NamedSharding:
        """Split along `axis`, the examples."""
        return NamedSharding(self.mesh, P(*[None] * axis, "batch"))

    def split(self, batch: PyTree) -> PyTree:
        """Inside a compiled program: `batch` with its examples split, if they divide evenly."""
        size = self.mesh.size

        def leaf(a: Any) -> Any:
            if size == 1 or a.ndim == 0 or a.shape[0] % size:
                return a
            return jax.lax.with_sharding_constraint(a, self.batches())

        return jax.tree.map(leaf, batch)

    def of_state(self, shapes: PyTree) -> PyTree:
        """The sharding of every array of a state: the longest axis that divides evenly is split."""

        def leaf(a: Any) -> NamedSharding:
            size = self.mesh.size
            axes = [i for i, length in enumerate(a.shape) if length % size == 0]
            if not self.split_state or size == 1 or not axes or np.prod(a.shape) < SPLIT_ABOVE:
                return self.everywhere
            longest = max(axes, key=lambda i: a.shape[i])
            return NamedSharding(self.mesh, P(*[None] * longest, "batch"))

        return jax.tree.map(leaf, shapes)


def make_layout(devices: int | Sequence[Any], split_state: bool, batch_size: int) -> Layout:
    """The layout over `devices`, a number of the local ones or a sequence.

    Raises:
      ValueError: there are fewer devices, or they do not divide `batch_size`.
    """
    mesh = Mesh(lane_mesh(devices).devices, ("batch",))
    if batch_size % mesh.size:
        raise ValueError(
            f"`batch_size` must be a multiple of the {mesh.size} devices, got "
            f"batch_size={batch_size}."
        )
    return Layout(mesh, split_state)
