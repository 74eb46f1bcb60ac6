"""Wall time of calls: each is waited for, and the first are not counted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


def seconds(run: Callable[[], Any], repeats: int = 5, warmup: int = 1) -> list[float]:
    """Wall seconds of each of `repeats` calls, after `warmup` that are not counted.

    A call lasts until all arrays that `run` returns are ready.

    >>> import jax.numpy as jnp
    >>> len(seconds(lambda: jnp.zeros(3) + 1, repeats=2))
    2
    """
    for _ in range(warmup):
        jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return times


def rounds(run: Callable[[], Any], length: float, count: int = 5) -> list[float]:
    """Mean wall seconds of a call in each of `count` rounds, after a warm-up.

    Args:
      run: what is timed.
      length: seconds of a round, which makes as many calls as fill it, at least one.
      count: of rounds.

    >>> import jax.numpy as jnp
    >>> len(rounds(lambda: jnp.zeros(3) + 1, length=1e-3, count=3))
    3
    """
    once = min(seconds(run, repeats=2, warmup=1))
    calls = max(1, round(length / once))
    return [statistics.fmean(seconds(run, calls, warmup=0)) for _ in range(count)]
