"""One measurement: what was run, its FLOPs and bytes as counted, and its seconds as timed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from jdl import nn, tree

COUNTING = (
    "FLOPs are counted from the traced program (jdl.nn.flops), scans as often as they run; bytes "
    "are the arguments, read once, and the results, written once. What the compiler adds or "
    "saves between is not counted."
)


class Measurement(NamedTuple):
    """What a call does, and how long it takes.

    Attributes:
      group: ceilings, updates, layers, steps or lanes.
      name: unique in its group, dtype and number of devices.
      size: the shape of the input or of what is changed, as in "32x784".
      dtype: of the arithmetic.
      devices: how many work at once.
      flops: floating-point operations of a call, on all devices.
      bytes: that a call must move at least, on all devices.
      seconds: of a call, one figure for each round.
      details: figures that only this group has.
    """

    group: str
    name: str
    size: str
    dtype: str
    devices: int
    flops: int
    bytes: int
    seconds: list[float]
    details: Mapping[str, float] = {}

    @property
    def median(self) -> float:
        """The median of `seconds`."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """The distance between the quartiles of `seconds`, as a share of the median."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / self.median

    @property
    def flops_per_second(self) -> float:
        """FLOP/s at the median."""
        return self.flops / self.median

    @property
    def bytes_per_second(self) -> float:
        """Bytes a second at the median."""
        return self.bytes / self.median

    @property
    def intensity(self) -> float:
        """FLOPs a byte."""
        return self.flops / self.bytes


def counts(function: Callable[..., Any], *args: Any) -> tuple[int, int]:
    """The FLOPs of `function(*args)`, and the bytes that it must move; nothing is computed.

    FLOPs are counted as `nn.flops` does, not by the compiler, whose analysis counts the body of
    a scan once. Bytes are those of the arguments and of the results: whatever lies between might
    stay on the chip.

    Args:
      function: of arrays.
      args: arrays or `jax.ShapeDtypeStruct`s.

    >>> import jax.numpy as jnp
    >>> counts(jnp.dot, jnp.ones((2, 3)), jnp.ones((3, 5)))  # 2*2*3*5; 4*(6 + 15 + 10)
    (60, 124)
    """
    out = jax.eval_shape(function, *args)
    return nn.flops(function, *args), tree.nbytes(args) + tree.nbytes(out)


def chained(function: Callable[..., Any], carry: tuple[Any, ...], *rest: Any) -> Callable[[], Any]:
    """Calls of `function(*carry, *rest)` that each take the tuple that the one before gave.

    Compiled, with the carry donated: results take the memory of what they replace, as in
    training. The arrays of `carry` cannot be used afterwards.

    >>> import jax.numpy as jnp
    >>> count = chained(lambda n, by: (n + by,), (jnp.zeros(()),), 2.0)
    >>> _ = count()
    >>> float(count()[0])
    4.0
    """
    compiled = jax.jit(function, donate_argnums=tuple(range(len(carry))))
    held = [carry]

    def run() -> Any:
        held[0] = compiled(*held[0], *rest)
        return held[0]

    return run
