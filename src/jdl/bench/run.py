"""All measurements in order, each a job of its own, so that their memory is never held at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from jdl.bench import ceilings, lanes, layers, steps, updates
from jdl.bench.measurement import Measurement
from jdl.engine.memory import out_of_memory


class Sizes(NamedTuple):
    """How much work each measurement does.

    Attributes:
      matmul: rows and columns of the matrices that are multiplied.
      copy: float32 numbers that are copied on each device.
      update: matrices in the tree that an update changes, and the rows and columns of each.
      muon: the same for updates that multiply matrices.
      batch: examples, from which the batch of each layer and network is derived.
      tokens: of a sequence.
      features: of a layer, from which the widths of networks are derived.
      lanes: on each device.
      trial: training steps of a trial in a lane.
      kinds: the most updates of each kind, layers and networks.
      round: seconds of each of the five rounds of a measurement.
    """

    matmul: int
    copy: int
    update: tuple[int, int]
    muon: tuple[int, int]
    batch: int
    tokens: int
    features: int
    lanes: tuple[int, ...]
    trial: int
    kinds: int
    round: float


QUICK = Sizes(128, 2**16, (2, 32), (2, 16), 4, 4, 16, (1, 2), 10, 2, 1e-3)
# Adam's arrays take 256 MiB, as much as the copy's: beyond most caches.
FULL_CPU = Sizes(
    matmul=2048,
    copy=2**26,
    update=(16, 1024),
    muon=(16, 256),
    batch=16,
    tokens=128,
    features=256,
    lanes=(1, 2, 4, 8, 16, 32),
    trial=500,
    kinds=10,
    round=0.1,
)
# A millisecond of a large accelerator, which a call's own cost of some 20 us does not hide.
FULL = Sizes(
    matmul=8192,
    copy=2**28,
    update=(64, 1024),
    muon=(64, 1024),
    batch=128,
    tokens=256,
    features=1024,
    lanes=(1, 4, 16, 64, 256, 1024, 4096),
    trial=500,
    kinds=10,
    round=0.1,
)


def sizes(quick: bool) -> Sizes:
    """Sizes that take about a minute on these devices, or `QUICK`."""
    if quick:
        return QUICK
    return FULL_CPU if jax.default_backend() == "cpu" else FULL


def jobs(sizes: Sizes) -> dict[str, Callable[[], Measurement]]:
    """The measurements to make, by what they are called while they run.

    Products of matrices are measured in float32, and on accelerators in bfloat16, on one device
    and on all of them at once. The devices of a CPU share its cores, so that only all of them
    are a ceiling.
    """
    devices = jax.local_devices()
    cpu = devices[0].platform == "cpu"
    dtypes = ["float32"] if cpu else ["float32", "bfloat16"]
    teams = [devices] if cpu or len(devices) == 1 else [devices[:1], devices]
    length, batch, tokens, features = sizes.round, sizes.batch, sizes.tokens, sizes.features
    made: dict[str, Callable[[], Measurement]] = {}

    def add(title: str, measured: Callable[..., Measurement], *args: object) -> None:
        made[title] = lambda: measured(*args)

    for team in teams:
        on = f"{len(team)} device{'s' * (len(team) != 1)}"
        for dtype in dtypes:
            add(f"matmul {dtype}, {on}", ceilings.matmul, sizes.matmul, dtype, team, length)
        add(
            f"copy, {on}",
            ceilings.copy,
            sizes.copy // len(team) if cpu else sizes.copy,
            team,
            length,
        )
    for chosen, (count, side) in (
        (updates.ELEMENTWISE, sizes.update),
        (updates.MATRIX, sizes.muon),
    ):
        for name, make in list(chosen.items())[: sizes.kinds]:
            add(f"update of {name}", updates.measured, name, make, count, side, length)
    for name, (layer, kind) in list(layers.layers(features).items())[: sizes.kinds]:
        shape = layers.shape_of(kind, batch, tokens, features)
        add(f"layer {name}", layers.measured, name, layer, shape, length)
    networks = steps.networks(batch, tokens, features)
    for name, network in list(networks.items())[: sizes.kinds]:
        for dtype in dtypes if name == "transformer" else dtypes[:1]:
            add(f"step of {name} {dtype}", steps.measured, name, network, dtype, length)
    for width in sizes.lanes:
        add(f"{width * len(devices)} lanes", lanes.measured, width, sizes.trial)
    return made


def measured(
    to_do: dict[str, Callable[[], Measurement]], say: Callable[[int, str], None]
) -> tuple[list[Measurement], list[str]]:
    """Makes the measurements in order.

    Args:
      to_do: as `jobs` gives them.
      say: receives how many are made and the title of the next.

    Returns:
      The measurements, and the titles of those that did not fit the device's memory.
    """
    made: list[Measurement] = []
    left_out: list[str] = []
    for number, (title, job) in enumerate(to_do.items()):
        say(number, title)
        try:
            made.append(job())
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error):
                raise
            left_out.append(title)
    return made, left_out
