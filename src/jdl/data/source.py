"""Streams of training batches that can be taken up again where they were left."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jdl.data.arrays import as_arrays, check_held, device_dtype, named_arrays
from jdl.data.error import DataError

Position = dict[str, Any]
"""Where a stream stands, as plain JSON."""


class Stream(NamedTuple):
    """Training batches from outside, for `train.fit`, prefetched to the device on a thread.

    A batch is a pair `(x, y)` of NumPy arrays, or of what NumPy can view as one,
    with `batch_size` examples each; a smaller one, such as the last of an epoch,
    is left out. So that a resumed run equals one that was never interrupted,
    `source` is one of

    - a function `source(step)` that gives an iterator over the batches from
      training step `step` on: the step is the position;
    - an iterable with a state: a Grain loader or dataset, whose iterator has
      `get_state` and `set_state`, or torchdata's `StatefulDataLoader`, which has
      `state_dict` and `load_state_dict`. The state after the last batch that was
      trained on is written into the checkpoint, as JSON or bytes;
    - any other iterable, such as a PyTorch `DataLoader`. It begins anew, and as
      many batches as were trained on are passed over, so that it has to give the
      same ones again: a shuffling loader needs a generator with a seed of its own.

    An iterable that ends is iterated again: that is an epoch.

    Attributes:
      source: as above.
      steps_per_epoch: whole batches in a pass, for `fit(epochs=...)`; None where
        only steps are counted.
    """

    source: Any
    steps_per_epoch: int | None = None


class Reader(Iterator[Any]):
    """The batches of a stream from some step on, and the position after each."""

    def __init__(
        self, stream: Stream, batch_size: int, step: int = 0, position: Position | None = None
    ):
        """Opens the stream.

        Args:
          stream: what to read.
          batch_size: examples that a batch has.
          step: the first training step whose batch is wanted.
          position: as `position` gave it before that step; None is a new start.
        """
        self._source, self._batch_size, self._step = stream.source, batch_size, step
        self._ahead: list[Any] = []
        self._again: Callable[[], Any] | None = None
        state = (position or {}).get("state")
        if callable(self._source) and not hasattr(self._source, "__iter__"):
            self._iterator = iter(self._source(step))
            return
        self._again = lambda: iter(self._source)
        if state is not None and hasattr(self._source, "load_state_dict"):
            self._source.load_state_dict(_decoded(state))
        self._iterator = iter(self._source)
        if state is not None and hasattr(self._iterator, "set_state"):
            self._iterator.set_state(_decoded(state))
        elif state is None:
            for _ in range(step):
                self._next()

    def __next__(self) -> Any:
        self._step += 1
        return self._ahead.pop(0) if self._ahead else self._next()

    def peek(self) -> Any:
        """The next batch, which `next` will give."""
        if not self._ahead:
            self._ahead.append(self._next())
        return self._ahead[0]

    @property
    def position(self) -> Position:
        """Where the stream stands; not to be asked while a batch that was peeked at waits.

        Raises:
          DataError: the stream has a state that is neither bytes nor JSON.
        """
        if hasattr(self._source, "state_dict"):
            return {"state": _encoded(self._source.state_dict())}
        if hasattr(self._iterator, "get_state"):
            return {"state": _encoded(self._iterator.get_state())}
        return {}

    def close(self) -> None:
        """Closes what is read, if it can be."""
        if hasattr(self._iterator, "close"):
            self._iterator.close()

    def _next(self) -> Any:
        for _ in range(2):
            batch = self._raw()
            if isinstance(batch, list | tuple):
                batch = tuple(as_arrays(f"batch[{i}]", part) for i, part in enumerate(batch))
            else:
                batch = as_arrays("batch", batch)
            for what, a in named_arrays("batch", batch):
                if device_dtype(a.dtype) != a.dtype:
                    check_held(f"In the stream's batch for step {self._step}, {what}", a)
            sizes = {a.shape[0] if a.ndim else 0 for a in jax.tree.leaves(batch)}
            if sizes == {self._batch_size}:
                return batch
            if len(sizes) != 1 or max(sizes) > self._batch_size:
                break
        raise DataError(
            f"The stream's batch for step {self._step} has {sorted(sizes)} examples: expected "
            f"batch_size={self._batch_size}, and only now and then fewer."
        )

    def _raw(self) -> Any:
        try:
            return next(self._iterator)
        except StopIteration:
            pass
        try:
            if self._again is not None:
                self._iterator = self._again()
                return next(self._iterator)
        except StopIteration:
            pass
        raise DataError(
            f"The stream has no batch for step {self._step}: it ended and gave no more when it was "
            "iterated again. A generator can be iterated once; give a function of the step."
        )


def chunks(
    reader: Reader, step: int, every: int, most: int, stop: int, positions: Callable[[Any], None]
) -> Iterator[Any]:
    """Stacks the batches of consecutive steps, so that one transfer and one call do for several.

    Args:
      reader: which stands at `step`.
      step: the first one.
      every: a chunk never goes past a multiple of this.
      most: batches in a chunk; a shorter one is padded with zeros.
      stop: the step before which to end.
      positions: is told the position after each chunk, before it is given.
    """
    try:
        while step < stop:
            count = min(most, every - step % every, stop - step)
            stacked: Any = None
            for index in range(count):
                batch = next(reader)
                if stacked is None:
                    stacked = jax.tree.map(lambda a: np.zeros((most, *a.shape), a.dtype), batch)
                for into, a in zip(jax.tree.leaves(stacked), jax.tree.leaves(batch), strict=True):
                    if into.shape[1:] != a.shape:
                        raise DataError(
                            f"The stream's batch for step {step + index} has an array of shape "
                            f"{a.shape}: expected {into.shape[1:]}, as before."
                        )
                    into[index] = a
            step += count
            positions(reader.position)
            yield stacked
    finally:
        reader.close()


def _encoded(state: Any) -> Any:
    if isinstance(state, bytes):
        return {"base64": base64.b64encode(state).decode()}
    if _is_json(state):
        return {"json": state}
    raise DataError(
        f"The state of a stream must be bytes or JSON to be written into a checkpoint, got {state}."
    )


def _decoded(state: Any) -> Any:
    return base64.b64decode(state["base64"]) if "base64" in state else state["json"]


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(v) for key, v in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return value is None or isinstance(value, str | int | float | bool)
