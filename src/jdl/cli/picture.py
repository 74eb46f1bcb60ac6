"""Saves a command's picture, or says how to get it if matplotlib is not installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def save(make: Callable[[], Any], path: Path, run: Path | None) -> str:
    """Writes the figure that `make` gives, and returns the line that says so.

    Args:
      make: draws the figure.
      path: the file, in the format of its extension.
      run: the run's folder, for the command that draws it later; None if none does.
    """
    try:
        figure = make()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        later = f", then jdl report {run}" if run else ""
        return f"no picture: matplotlib is missing. pip install 'jdl[plot]'{later}"
    figure.savefig(path, dpi=150)
    return f"picture: {path}"
