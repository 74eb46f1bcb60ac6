"""Parts of a sweep for job arrays: each runs by itself, and `merge` makes one run of them."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jdl._paths import expanded
from jdl.engine.database import StoreError
from jdl.engine.differences import differences
from jdl.engine.events import ENDED
from jdl.engine.journal import Journal
from jdl.engine.tables import Tables
from jdl.sweep.results import Results, read
from jdl.sweep.search import Search
from jdl.sweep.space import Space, split_static

_BATCH = 4096  # configurations asked for at once
_MOST = 10**7  # configurations that are drawn before they are split


class Part(NamedTuple):
    """A stretch of a sweep's trials.

    Attributes:
      number: of the part, from 1.
      of: how many parts there are.
      first: the number of its first trial in the whole sweep.
      trials: how many the whole sweep has.
      by_program: how many the whole sweep has of each program.
    """

    number: int
    of: int
    first: int
    trials: int
    by_program: Mapping[Any, int]

    def to_json(self) -> dict[str, int]:
        """What the specification of its run says of it."""
        return {"number": self.number, "of": self.of, "first": self.first, "trials": self.trials}


def take_part(search: Search, space: Space, trials: int | None, part: Any) -> tuple[Search, Part]:
    """The search of one part of a sweep, and where it lies in the whole.

    Part `k` of `n` has the trials from `(k - 1) * trials // n` to `k * trials // n`.

    Args:
      search: of the whole sweep.
      space: the parsed space.
      trials: their maximum number.
      part: `(k, n)`.

    Raises:
      ValueError: `part` is no pair of integers with 1 <= k <= n, the search learns,
        the part would be empty, or the search has no end and `trials` is None.
    """
    pair = tuple(part) if isinstance(part, list | tuple) else ()
    whole = all(isinstance(i, int | np.integer) and not isinstance(i, bool) for i in pair)
    if not (whole and len(pair) == 2 and 1 <= pair[0] <= pair[1]):
        raise ValueError(
            "`part` must be a pair (k, n) of integers with 1 <= k <= n, part k of n, got "
            f"part={part!r}."
        )
    number, of = map(int, pair)
    if search.adaptive:
        raise ValueError(
            f"The search {search.name} learns from all trials, so it cannot be split by `part`. "
            "Use a grid, random or sobol search."
        )
    asked = iter(lambda: search.ask(_BATCH), [])
    most = _MOST if trials is None else trials
    configs = list(itertools.islice(itertools.chain.from_iterable(asked), most))
    if trials is None and len(configs) == most:
        raise ValueError(f"The search {search.name} has no end, so `part` needs `trials`.")
    if not configs:
        raise ValueError(
            f"The search {search.name} gave no configuration. A search that one sweep has used is "
            "empty; make another for each part."
        )
    first, end = ((number - i) * len(configs) // of for i in (1, 0))
    if first == end:
        raise ValueError(f"Part {number} of {of} is empty: there are {len(configs)} trials in all.")
    programs = collections.Counter(split_static(space, config)[0] for config in configs)
    mine = iter(configs[first:end])
    one = search._replace(ask=lambda count: list(itertools.islice(mine, count)))
    return one, Part(number, of, first, len(configs), programs)


def merge(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Results:
    """Makes one run of the parts of a sweep, as if it had been run in one piece.

    Its trials have the numbers and the random keys that they have in the whole sweep, and
    the same reports: bit for bit where `lanes` was given or parts are large, else to
    rounding. The same call of `run` without `part` finds it in `out`. A part that is
    there twice counts once. A merge that is interrupted leaves no run.

    Args:
      folders: of the finished parts, in any order.
      out: the folder of the merged run; it must not hold a run yet.

    Raises:
      StoreError: a folder holds no finished part, parts belong to different
        sweeps, some are missing, two runs of a part differ, or `out` holds a run.

    >>> import tempfile
    >>> from jdl import sweep, train
    >>> def make_trial(hp):
    ...     loss = lambda w, batch: {"loss": (w - 3.0) ** 2}
    ...     step = lambda w, batch, key: (w - hp["lr"] * (w - 3.0), loss(w, batch))
    ...     return train.Trial(init=lambda key, batch: 0.0 * hp["lr"], step=step, evaluate=loss)
    >>> data = (np.zeros((4, 1)), np.zeros(4)), (np.zeros((4, 1)), np.zeros(4)), None
    >>> options = {"steps": 2, "batch_size": 4, "progress": False}
    >>> with tempfile.TemporaryDirectory() as top:
    ...     for k in (1, 2):
    ...         rates = {"lr": sweep.grid(0.1, 0.4, 4)}
    ...         run = sweep.run(make_trial, rates, data, part=(k, 2), out=f"{top}/{k}", **options)
    ...     merge([f"{top}/1", f"{top}/2"], f"{top}/all").best.config
    {'lr': 0.4}
    """
    if isinstance(folders, str | os.PathLike) or not folders:
        raise ValueError(f"`folders` must list the folders of all parts, got {folders!r}.")
    for given in (*folders, out):
        if not isinstance(given, str | os.PathLike):
            raise TypeError(f"A folder must be a path, got {given!r}.")
    target = expanded(out)
    if (target / "run.sqlite").exists():
        raise StoreError(f"{target} holds a run already. Give another folder.")
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(contextlib.closing(_open(folder))) for folder in folders]
        parts = _distinct(opened)
        specification = _whole([_specification(part) for part in parts])
        made = [] if target.exists() else [target]
        unfinished = target / ".merging"
        shutil.rmtree(unfinished, ignore_errors=True)  # of a merge that was killed
        try:
            with contextlib.closing(Journal(unfinished)) as journal:
                _fill(journal, parts, specification)
            os.replace(unfinished / "run.sqlite", target / "run.sqlite")
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
            with contextlib.suppress(OSError):  # it holds the run
                for empty in made:
                    empty.rmdir()
    return read(target)


def _fill(journal: Journal, parts: Sequence[Tables], specification: Mapping[str, Any]) -> None:
    """Writes the merged run."""
    notes = [part.notes() for part in parts]
    plans = {label: plan for note in notes for label, plan in note["plans"].items()}
    # Each part has its best states, so that of the merged run the least kept are the best.
    keep, turn = min(note["keep"] for note in notes), 0
    journal.begin(specification, parts[0].metrics, (), plans=plans, keep=keep)
    for part in parts:
        turn = journal.absorb(part, _specification(part)["part"]["first"], turn, keep)
    stats = _stats([note["stats"] for note in notes])
    journal.note(stats=stats, search=notes[0]["search"], turn=turn, complete=True)


def _specification(part: Tables) -> dict[str, Any]:
    return part.specification() or {}


def _open(folder: str | os.PathLike[str]) -> Tables:
    """A part's file.

    Raises:
      StoreError: it is none, or it is not finished.
    """
    tables = Tables(folder, write=False)
    facts = _specification(tables).get("part")
    left = sum(count for status, count in tables.counts().items() if status not in ENDED)
    complete = tables.notes().get("complete", False)
    if facts is None or not complete:
        tables.close()
        raise StoreError(
            f"{folder} holds no part of a sweep: it was run without `part`."
            if facts is None
            else f"Part {facts['number']} of {facts['of']} in {folder} is not finished: {left} of "
            "its trials have not ended. Run it again to resume it."
        )
    return tables


def _distinct(opened: Sequence[Tables]) -> list[Tables]:
    """The parts in order, each once.

    Raises:
      StoreError: they are of different sweeps, one is missing, or two runs of one differ.
    """
    first = _specification(opened[0])
    of, by_number = first["part"]["of"], dict[int, Tables]()
    for tables in opened:
        specification = _specification(tables)
        if lines := differences(_shared(first), _shared(specification)):
            raise StoreError(
                f"{opened[0].folder} and {tables.folder} are parts of different sweeps:\n"
                + "\n".join(lines)
            )
        if tables.metrics != opened[0].metrics:
            raise StoreError(
                f"{opened[0].folder} reports {', '.join(opened[0].metrics)}, but {tables.folder} "
                f"reports {', '.join(tables.metrics)}. Every trial must report the same metrics."
            )
        known = by_number.setdefault(specification["part"]["number"], tables)
        _check_same(known, tables)
    if missing := [str(k) for k in range(1, of + 1) if k not in by_number]:
        parts = "Part" if len(missing) == 1 else "Parts"
        raise StoreError(f"{parts} {', '.join(missing)} of {of} missing.")
    return [by_number[number] for number in sorted(by_number)]


def _shared(specification: Mapping[str, Any]) -> dict[str, Any]:
    """What all parts of one sweep have in common."""
    part = {name: specification["part"][name] for name in ("of", "trials")}
    return {**specification, "part": part, "trials": None, "programs": None}


def _check_same(one: Tables, other: Tables) -> None:
    """Raises StoreError unless two runs of a part have the same results."""
    columns = ("trial", "config", "status", "steps", "final")
    for a, b in zip(one.rows("trials", columns), other.rows("trials", columns), strict=True):
        if a != b:
            raise StoreError(
                f"{one.folder} and {other.folder} are runs of the same part, but trial {a[0]} of "
                "it differs. Leave one of them out."
            )


def _whole(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The specification of the whole sweep.

    Raises:
      StoreError: a program is another one in another part.
    """
    programs: dict[str, str] = {}
    for specification in parts:
        for label, program in specification["programs"].items():
            if programs.setdefault(label, program) != program:
                raise StoreError(f"make_trial computes something else for {label} in some parts.")
    rest = {name: value for name, value in parts[0].items() if name != "part"}
    return {**rest, "programs": programs, "trials": parts[0]["part"]["trials"]}


def _stats(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all parts cost together; their lanes' busy share is weighted by their steps."""
    added = ("compilations", "found", "compile_seconds", "seconds", "lane_steps", "compactions")
    steps = sum(part["lane_steps"] for part in parts)
    busy = sum(part["busy"] * part["lane_steps"] for part in parts) / max(1, steps)
    total = {name: sum(part[name] for part in parts) for name in added}
    return {**total, "busy": busy, "complete": True, "out_of_time": False}
