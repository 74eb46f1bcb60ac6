"""`jdl merge`: one run of the parts of a sweep."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from jdl.cli.options import arg


@dataclasses.dataclass(frozen=True)
class Merge:
    """Make one run of the parts that `jdl sweep --part K/N` trained, and show it.

    The merged run is the one that `jdl sweep` without `--part` would have made: the same
    networks, equal to the bit if `--lanes` was given and to rounding otherwise. Every
    other command reads it.

    Attributes:
      parts: the folders of all parts, in any order; one that is there twice counts once.
      out: the folder of the merged run, which must not hold a run yet.
      no_plot: draw no picture.
    """

    parts: Annotated[tuple[Path, ...], tyro.conf.Positional, arg("PART", "(required)")]
    out: Annotated[Path, arg("FOLDER")]
    no_plot: bool = False

    def run(self) -> int:
        """Merges the parts and shows the result."""
        from jdl import sweep
        from jdl._paths import expanded
        from jdl.cli import folder, summary

        parts = [expanded(part) for part in self.parts]
        note = folder.read_note(parts[0]) if parts else {}
        with folder.noted(self.out, {k: v for k, v in note.items() if k != "command"}):
            results = sweep.merge(parts, self.out)
        summary.show(results, self.out, fresh=True, plot=not self.no_plot)
        return 0
