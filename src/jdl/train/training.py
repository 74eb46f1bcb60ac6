"""The host's loop of one run: reports, the best state, callbacks, checkpoints."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from jdl import tree
from jdl.data.source import Position, Reader, chunks
from jdl.data.stream import prefetch
from jdl.engine import checkpoint
from jdl.engine.contract import Shapes
from jdl.engine.events import DIVERGED, DONE, RUNNING, STOPPED, Record
from jdl.engine.goal import Goal
from jdl.engine.interrupt import Interrupt
from jdl.engine.journal import Journal
from jdl.engine.lane import Lanes
from jdl.engine.progress import Progress, Status
from jdl.engine.snapshot import check_owner
from jdl.engine.workload import Workload
from jdl.train.layout import Layout
from jdl.train.programs import Programs

CHECKPOINT = "checkpoint.safetensors"
STATE = "state.safetensors"


class Report(NamedTuple):
    """What a callback is told.

    Attributes:
      step: training steps done.
      steps: those of the whole run.
      metrics: by name, as "train_loss" and "valid_accuracy".
      seconds: since training began or went on.
      best: whether the metric that the run is judged by is the best so far.
    """

    step: int
    steps: int
    metrics: dict[str, float]
    seconds: float
    best: bool


Callback = Callable[[Report], Any]


class Outcome(NamedTuple):
    """How a loop ended.

    Attributes:
      status: done, stopped, diverged, or running if it was interrupted.
      state: the best that is kept, or the last one.
      step: training steps that it has seen.
    """

    status: str
    state: PyTree
    step: int


class Training:
    """One run in progress."""

    def __init__(
        self,
        work: Workload,
        shapes: Shapes,
        programs: Programs,
        layout: Layout,
        db: Journal,
        goal: Goal,
        progress: Progress,
        *,
        keep_best: bool,
        patience: int | None,
        min_delta: float,
        callbacks: Sequence[Callback],
        checkpoint_seconds: float,
    ):
        self._work, self._shapes, self._programs, self._layout = work, shapes, programs, layout
        self._db, self._goal, self._progress = db, goal, progress
        self._keep_best, self._patience, self._min_delta = keep_best, patience, min_delta
        self._callbacks, self._checkpoint_seconds = callbacks, checkpoint_seconds
        self._lane: Any = None
        self._best: PyTree = None  # a copy of the state at the best report
        self._best_step = 0
        self._scores: list[float] = []
        self._position: Position = {}  # of the stream, after the last report

    def run(
        self,
        seed: int,
        data: Any,
        read: Callable[[int, Position | None], Reader] | None,
        start: PyTree = None,
    ) -> Outcome:
        """Trains from the folder's checkpoint, or from the beginning, to the end.

        Args:
          seed: the root of all random numbers.
          data: the splits that live on the device, by name.
          read: opens the stream of training batches at a step; None draws them from `data`.
          start: the state at step 0; None is what the trial's `init` gives.
        """
        place = self._layout.everywhere
        root = jax.device_put(np.uint32(seed), place)
        splits = jax.device_put(data, place)
        at = self._restore()
        if at == 0:
            self._lane = self._programs.start(root) if start is None else self._start(start)
        segments = self._streamed(root, at, read) if read else self._resident(root, splits)
        began = last_checkpoint = time.monotonic()
        status = RUNNING
        with Interrupt(self._progress.say) as interrupt:
            try:
                for report in range(at + 1, self._work.reports + 1):
                    means = next(segments)
                    status = self._report(report, means, splits, time.monotonic() - began)
                    if status != RUNNING:
                        break
                    due = time.monotonic() - last_checkpoint >= self._checkpoint_seconds
                    if due or interrupt.requested:
                        self._save(report)
                        last_checkpoint = time.monotonic()
                    if interrupt.requested:
                        break
            finally:
                segments.close()
        if self._best is not None:
            return Outcome(status, self._best, self._best_step)
        return Outcome(status, self._programs.copy(self._lane.state), int(self._lane.step))

    def _start(self, state: PyTree) -> Any:
        lane = Lanes(state, np.int32(0), np.int32(-1), np.float32(0))  # type: ignore[arg-type]
        # A copy, because the next call overwrites it, and the user keeps the state.
        return self._programs.copy(jax.device_put(lane, self._programs.shardings))

    def _resident(self, root: Any, splits: Any) -> Generator[Any, None, None]:
        while True:
            self._lane, means = self._programs.resident(self._lane, root, splits["train"])
            yield means

    def _streamed(
        self, root: Any, at: int, read: Callable[[int, Position | None], Reader]
    ) -> Generator[Any, None, None]:
        every, steps, most = self._work.report_every, self._work.steps, self._programs.chunk
        positions: deque[Position] = deque()
        start = at * every
        reader = read(start, self._position if at else None)
        source = chunks(reader, start, every, most, steps, positions.append)
        names = [name.removeprefix("train_") for name in self._shapes.reports]
        names = [n for n, full in zip(names, self._shapes.reports) if full.startswith("train_")]
        zeros = {name: np.zeros((), np.float32) for name in names}
        divisor = jax.device_put(np.float32(every), self._layout.everywhere)
        with prefetch(source, device=self._layout.batches(1)) as ready:
            while True:
                sums = jax.device_put(zeros, self._layout.everywhere)
                for done in range(0, every, most):
                    count = jax.device_put(
                        np.int32(min(most, every - done)), self._layout.everywhere
                    )
                    chunk = next(ready)
                    self._lane, sums = self._programs.streamed(self._lane, sums, root, chunk, count)
                    self._position = positions.popleft()
                yield {name: total / divisor for name, total in sums.items()}

    def _report(self, report: int, means: Any, splits: Any, seconds: float) -> str:
        """Evaluates and writes a report, keeps the best state, and says how the run stands."""
        work, goal = self._work, self._goal
        values = {f"train_{name}": mean for name, mean in means.items()}
        if "valid" in splits:
            of_valid = self._programs.evaluate(self._lane.state, splits["valid"])
            values |= {f"valid_{name}": mean for name, mean in of_valid.items()}
        stepped, values = jax.device_get((self._lane.diverged, values))
        failed = int(stepped) >= 0
        metrics = {name: float(value) for name, value in values.items()}
        if failed:
            nan = [name for name in metrics if name.startswith("valid_")]
            metrics |= dict.fromkeys(nan, math.nan)
        step = report * work.report_every
        score = goal.score(metrics[goal.metric])
        best = score > max(self._scores, default=-math.inf)
        self._scores.append(score)
        if best and self._keep_best:
            self._best, self._best_step = self._programs.copy(self._lane.state), step
        names = sorted(self._shapes.reports)
        row = (0, step, *(metrics[name] for name in names))
        self._db.append(Record(report, "segment"), reports=[row])
        self._show(report, failed)
        stops = [
            bool(callback(Report(step, work.steps, dict(metrics), seconds, best)))
            for callback in self._callbacks
        ]
        if failed:
            return DIVERGED
        if report == work.reports:
            return DONE
        stale = self._patience is not None and self._stale() >= self._patience
        return STOPPED if stale or any(stops) else RUNNING

    def _stale(self) -> int:
        """Reports since the last one that was better than all before by more than `min_delta`."""
        best, last = -math.inf, 0
        for index, score in enumerate(self._scores, start=1):
            if score > best + self._min_delta or (best == -math.inf and score > best):
                best, last = score, index
        return len(self._scores) - last

    def _show(self, report: int, diverged: bool) -> None:
        best = max(self._scores)
        self._progress.update(
            Status(
                trials=1,
                done=int(report == self._work.reports and not diverged),
                running=int(report < self._work.reports and not diverged),
                diverged=int(diverged),
                stopped=0,
                fraction=report / self._work.reports,
                best=f"{self._goal.sign * best:.4g}" if math.isfinite(best) else "",
            )
        )

    def _save(self, report: int) -> None:
        """Writes lane, best state and position, so that the run can go on from this report."""
        if self._db.folder is None:
            return
        arrays = {f"lane|{path}": leaf for path, leaf in tree.named_leaves(self._lane).items()}
        if self._best is not None:
            arrays |= {f"best|{path}": leaf for path, leaf in tree.named_leaves(self._best).items()}
        notes = {
            "run": self._db.notes()["run"],
            "turn": report,
            "best_step": self._best_step,
            "has_best": self._best is not None,
            "position": self._position,
        }
        try:
            # The reports before the checkpoint must survive a crash of the machine, as it does.
            self._db.sync()
            blob = checkpoint.to_bytes(jax.device_get(arrays), notes)
            checkpoint.write_atomically(self._db.folder / CHECKPOINT, blob)
        except OSError as error:
            self._progress.say(f"No checkpoint written: {error}. Reports are safe.")

    def _restore(self) -> int:
        """Takes up the folder's checkpoint, if there is one, and gives its report."""
        path = None if self._db.folder is None else self._db.folder / CHECKPOINT
        if path is None or not path.exists():
            return 0
        try:
            leaves, notes = checkpoint.from_bytes(path.read_bytes(), str(path))
            check_owner(self._db, path, notes)
            lane, best = (
                {p[5:]: leaf for p, leaf in leaves.items() if p.startswith(prefix)}
                for prefix in ("lane|", "best|")
            )
            like: Lanes = self._shapes.lane
            lanes = checkpoint.fill(like, lane, str(path))
            kept = checkpoint.fill(like.state, best, str(path)) if notes["has_best"] else None
        except checkpoint.CheckpointError as error:
            raise checkpoint.CheckpointError(
                f"{error} Delete that file to begin again: what was reported is then replaced."
            ) from error
        shardings: Any = self._programs.shardings
        self._lane = jax.device_put(lanes, shardings)
        if kept is not None:
            self._best = jax.device_put(kept, shardings.state)
        self._best_step, self._position = notes["best_step"], notes["position"]
        names, table = self._db.reports()
        column = table[: notes["turn"], 2 + names.index(self._goal.metric)]
        self._scores = [self._goal.score(float(value)) for value in column]
        return notes["turn"]
