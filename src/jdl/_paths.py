"""Paths as users write them."""

from __future__ import annotations

import os
import pathlib


def expanded(path: str | os.PathLike[str]) -> pathlib.Path:
    """`path` with a leading "~" replaced by the home folder.

    >>> expanded("~/runs") == pathlib.Path.home() / "runs"
    True
    """
    return pathlib.Path(os.path.expanduser(path))
