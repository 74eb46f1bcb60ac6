"""The ceilings: how fast the devices multiply matrices and copy memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jdl.bench.measurement import Measurement, chained
from jdl.bench.timing import rounds
from jdl.engine.devices import lane_mesh

GROUP = "ceilings"


def matmul(size: int, dtype: str, devices: Sequence[Any], length: float) -> Measurement:
    """The FLOP/s of `a @ a` for a square matrix on each device, all at once.

    JAX's default precision multiplies float32 with fewer bits on accelerators (TF32 on an NVIDIA
    GPU), and so do the layers that this ceiling is for.

    Args:
      size: rows and columns.
      dtype: of the matrices.
      devices: that work at once.
      length: seconds of a round.
    """
    mesh = lane_mesh(devices)
    rows = P("lanes")
    shape = (len(devices), size, size)
    # A product of ones is the same work as any other, and stays finite in every dtype.
    make = jax.jit(lambda: jnp.ones(shape, dtype), out_shardings=NamedSharding(mesh, rows))
    multiply = jax.jit(
        jax.shard_map(lambda a: (a[0] @ a[0])[None], mesh=mesh, in_specs=rows, out_specs=rows)
    )
    a = make()
    return Measurement(
        GROUP,
        "matmul",
        f"{size}x{size}",
        dtype,
        len(devices),
        len(devices) * 2 * size**3,
        2 * a.nbytes,
        rounds(lambda: multiply(a), length),
    )


def copy(size: int, devices: Sequence[Any], length: float) -> Measurement:
    """The bytes a second, read and written, of `-x` in the place of `x`, on all devices at once.

    Args:
      size: float32 numbers on each device.
      devices: that work at once.
      length: seconds of a round.
    """
    sharding = NamedSharding(lane_mesh(devices), P("lanes"))
    shape = (len(devices), size)
    x = jax.jit(lambda: jnp.ones(shape, jnp.float32), out_shardings=sharding)()
    moved = 2 * x.nbytes
    run = chained(lambda x: (-x,), (x,))
    return Measurement(
        GROUP,
        "copy",
        f"{4 * size / 2**20:g} MiB",
        "float32",
        len(devices),
        len(devices) * size,
        moved,
        rounds(run, length),
    )


def _of(
    measurements: Sequence[Measurement], name: str, dtype: str, devices: int
) -> Measurement | None:
    """The ceiling for `devices` devices: of as many, else of the next larger number.

    The devices of a CPU share its cores, so that only all of them at once are measured.
    """
    known = [
        m
        for m in measurements
        if (m.group, m.name, m.dtype) == (GROUP, name, dtype) and m.devices >= devices
    ]
    return min(known, key=lambda m: m.devices, default=None)


def peak(measurements: Sequence[Measurement], of: Measurement) -> Measurement | None:
    """The product of matrices in the dtype of `of` on its devices; None if it was left out."""
    return _of(measurements, "matmul", of.dtype, of.devices)


def bandwidth(measurements: Sequence[Measurement], of: Measurement) -> Measurement | None:
    """The copy on the devices of `of`; None if it was left out."""
    return _of(measurements, "copy", "float32", of.devices)
