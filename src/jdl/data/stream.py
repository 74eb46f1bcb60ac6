"""Data that does not fit the device: batches of NumPy arrays, prefetched to it on a thread."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

import jax
import numpy as np

from jdl._host import put_copy
from jdl.data.arrays import as_arrays
from jdl.data.batches import batch_indices, steps_per_epoch

Key = Any
INDEX_STEPS = 64


def batches(
    arrays: Any, key: Key, batch_size: int, *, start: int = 0, stop: int | None = None
) -> Iterator[Any]:
    """Gathers on the host the batches of training steps `start`, `start + 1`, ... as NumPy arrays.

    They are the very batches that `batch_indices` draws inside a compiled
    program from the same key, so streaming trains as resident data does, and
    resuming is starting at a later step.

    Args:
      arrays: a tree of arrays of equal lengths, such as `dataset.train`; they
        may be memory-mapped, of which only the examples of a batch are read.
      key: of the order.
      batch_size: at most the number of examples.
      start: the first step.
      stop: the step before which to end; None goes on for ever.

    Yields:
      The tree with arrays of `batch_size` examples.

    >>> x = np.arange(6)
    >>> [b.shape for b in batches(x, jax.random.key(0), 2, stop=2)]
    [(2,), (2,)]
    """
    arrays = jax.tree.map(np.asarray, arrays, is_leaf=lambda node: isinstance(node, list))
    length = len(jax.tree.leaves(arrays)[0])
    steps_per_epoch(length, batch_size)
    return _batches(arrays, key, batch_size, length, start, stop)


def _batches(
    arrays: Any, key: Key, batch_size: int, length: int, start: int, stop: int | None
) -> Iterator[Any]:
    # On the CPU whatever the default device: it must not queue behind the training step.
    host = _host()
    key = jax.device_put(key, host)
    for first in _count(start, stop, INDEX_STEPS):
        with jax.default_device(host):
            indices = np.asarray(batch_indices(key, first, INDEX_STEPS, batch_size, length))
        for index in indices[: None if stop is None else stop - first]:
            # In native byte order, which a memory map may not have.
            yield as_arrays("batch", jax.tree.map(lambda a, index=index: a[index], arrays))


def _host() -> jax.Device:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS may leave the CPU out.
        return jax.local_devices()[0]


def _count(start: int, stop: int | None, step: int) -> Iterator[int]:
    while stop is None or start < stop:
        yield start
        start += step


class Prefetch(Iterator[Any]):
    """An iterator whose elements are made, and moved to the device, ahead of their use.

    Made by `prefetch`. Close it, or use it in a `with` statement, to stop its
    thread; reaching the end, an exception and garbage collection close it too.
    """

    def __init__(self, iterable: Iterable[Any], size: int, device: Any):
        self._ready: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._room = threading.Semaphore(size)
        self._stop = threading.Event()
        # The thread does not hold `self`, so that an iterator that nobody holds is collected.
        shared = self._ready, self._room, self._stop
        thread = threading.Thread(
            target=_produce, args=(iterable, device, *shared), name="jdl-prefetch", daemon=True
        )
        self._finalizer = weakref.finalize(self, _close, *shared, thread)
        thread.start()

    def __iter__(self) -> Prefetch:
        return self

    def __next__(self) -> Any:
        if self._stop.is_set():
            raise StopIteration
        kind, value = self._ready.get()
        self._room.release()
        if kind == "element":
            return value
        self.close()
        if kind == "error":
            raise value
        raise StopIteration

    def close(self) -> None:
        """Stops the thread and waits up to a second for it; elements not taken are dropped."""
        self._finalizer()

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def prefetch(iterable: Iterable[Any], size: int = 2, device: Any = None) -> Prefetch:
    """Runs `iterable` on a thread, `size` elements ahead, each moved to the device on the way.

    Args:
      iterable: anything that gives trees of NumPy arrays, or of what NumPy can
        view as one: a generator, `batches`, a Grain loader, a PyTorch
        `DataLoader`. It may fill the same arrays each time. Called on the thread only.
      size: how many elements may lie on the device ahead of use, the one in the
        making counted; at least 1.
      device: a device or a sharding for `jax.device_put`; None is the default device.

    Returns:
      An iterator over the same trees with `jax.Array` leaves. An exception of
      `iterable` comes out of `next` in its place in the order.

    >>> [int(x) for x in prefetch(np.arange(3))]
    [0, 1, 2]
    """
    if size < 1:
        raise ValueError(f"`size` must be in [1, inf), got size={size}.")
    return Prefetch(iterable, size, device)


def _produce(
    iterable: Iterable[Any],
    device: Any,
    ready: queue.SimpleQueue[tuple[str, Any]],
    room: threading.Semaphore,
    stop: threading.Event,
) -> None:
    iterator: Any = None
    try:
        iterator = iter(iterable)
        while True:
            room.acquire()
            if stop.is_set():
                return
            try:
                element = next(iterator)
            except StopIteration:
                ready.put(("end", None))
                return
            ready.put(("element", put_copy(_as_arrays(element), device)))
    except BaseException as error:
        ready.put(("error", error))
    finally:
        if hasattr(iterator, "close"):
            iterator.close()


def _close(
    ready: queue.SimpleQueue[tuple[str, Any]],
    room: threading.Semaphore,
    stop: threading.Event,
    thread: threading.Thread,
) -> None:
    stop.set()
    room.release()
    while not ready.empty():
        ready.get()
    # Wakes a consumer that waits on another thread.
    ready.put(("end", None))
    if thread is not threading.current_thread():
        thread.join(1.0)


def _as_arrays(element: Any) -> Any:
    """`element` with NumPy arrays for all leaves that are no JAX arrays yet."""
    return jax.tree.map(
        lambda leaf: leaf if isinstance(leaf, jax.Array) else as_arrays("element", leaf), element
    )
