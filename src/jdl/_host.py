"""Host arrays on their way to devices."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def put_copy(tree: Any, device: Any) -> Any:
    """`jax.device_put` of host arrays that their owner may overwrite at once.

    By itself it shares the memory of aligned NumPy arrays with a CPU device, whatever
    `may_alias` says (JAX 0.10), and copies large ones only after it has returned.
    """
    own = jax.tree.map(lambda a: np.array(a) if isinstance(a, np.ndarray) else a, tree)
    return jax.device_put(own, device)
