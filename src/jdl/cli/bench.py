"""`jdl bench`: measures in a minute how fast this machine computes, and how much of it jdl uses."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from jdl.cli.options import arg

if TYPE_CHECKING:
    from jdl.bench.record import Record

RECORD, PICTURE = "bench.json", "roofline.png"


@dataclasses.dataclass(frozen=True)
class Bench:
    """Measure how fast this machine computes, and how much of it jdl uses.

    In about a minute: products of matrices and a copy as ceilings; beside them
    optimizer updates, layers and training steps; and trials a second by the
    number of lanes. Prints a table, and writes bench.json with every single
    measurement and a picture, roofline.png. Run it while nothing else runs.

    Attributes:
      out: the folder of the record and the picture; by default a new one under runs/.
      quick: a few measurements of tiny sizes, to see that it works.
      compare: measure nothing; print what two records have in common, and their ratios.
      no_plot: draw no picture.
    """

    out: Annotated[Path | None, arg("FOLDER", "(default: under runs/)")] = None
    quick: bool = False
    compare: Annotated[tuple[Path, Path] | None, arg("A.json B.json", "(default: none)")] = None
    no_plot: bool = False

    def run(self) -> int:
        """Measures and shows what was found, or compares."""
        if self.compare is not None:
            return self._compare(*self.compare)
        out = self.out or Path("runs", time.strftime("bench-%Y%m%d-%H%M%S"))
        _check(out)
        from jdl.engine.devices import check_compiles, use_all_cores

        check_compiles()
        use_all_cores()
        from jdl.bench.machine import machine
        from jdl.bench.record import Record, write
        from jdl.bench.run import jobs, measured, sizes

        start = time.monotonic()
        to_do = jobs(sizes(self.quick))
        made, left_out = measured(to_do, lambda i, title: _say(i, len(to_do), title, start))
        _say(len(to_do), len(to_do), "", start)
        record = Record(machine(), self.quick, time.monotonic() - start, made, left_out)
        out.mkdir(parents=True, exist_ok=True)
        write(record, out / RECORD)
        self._show(record, out)
        return 0

    def _show(self, record: Record, out: Path) -> None:
        from jdl.bench.report import heading, notes, tables
        from jdl.cli import picture
        from jdl.cli.summary import console
        from jdl.plot import roofline_figure

        screen = console()
        for line in heading(record):
            screen.print(line, markup=False, width=80)
        for table in tables(record):
            screen.print()
            screen.print(table)
        screen.print()
        for line in notes(record):
            screen.print(line, markup=False, width=80)
        screen.print(f"record:  {out / RECORD} ({record.seconds:.0f} s)", markup=False)
        if not self.no_plot:
            title = f"{record.machine['device']}, {record.machine['date']}"
            made = picture.save(
                lambda: roofline_figure(record.measurements, title), out / PICTURE, None
            )
            screen.print(made, markup=False, soft_wrap=True)

    def _compare(self, a: Path, b: Path) -> int:
        from jdl._paths import expanded
        from jdl.bench.record import read
        from jdl.bench.report import compared, heading
        from jdl.cli.summary import console

        if self.out is not None or self.quick or self.no_plot:
            raise ValueError("`--compare` measures nothing, so give it no other option.")
        records = [read(expanded(path)) for path in (a, b)]
        table = compared(*records)
        screen = console()
        for letter, path, record in zip("AB", (a, b), records):
            screen.print(f"{letter}: {path}", markup=False, soft_wrap=True)
            for line in heading(record):
                screen.print(f"   {line}", markup=False, soft_wrap=True)
        screen.print()
        screen.print(table)
        return 0


def _check(out: Path) -> None:
    """Raises unless a record can be written to the folder, and leaves nothing there.

    A bench takes a minute, which must not be lost at its end.

    Raises:
      ValueError: it holds a record already, or cannot be written.
    """
    if (out / RECORD).exists():
        raise ValueError(f"{out} holds a bench already, {RECORD}. Give another folder with --out.")
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / RECORD).touch()
        (out / RECORD).unlink()
        for folder in new:
            folder.rmdir()
    except OSError as error:
        raise ValueError(
            f"The folder {out} cannot be written: {error.strerror}. Give another one with --out."
        ) from error


def _say(done: int, total: int, title: str, start: float) -> None:
    """A line of progress, which the next one replaces on a terminal."""
    line = f"{done}/{total} measured, {time.monotonic() - start:.0f} s: {title}"
    last = done == total
    if sys.stderr.isatty():
        print(f"\r{' ' * 70 if last else line:<70}", end="\r" * last, file=sys.stderr, flush=True)
    elif not last:
        print(line, file=sys.stderr, flush=True)
