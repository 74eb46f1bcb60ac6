"""The run's folder for the command line: its default name, and a note of its command."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jdl.data import Dataset
from jdl.engine.checkpoint import write_atomically
from jdl.engine.contract import fingerprint
from jdl.engine.database import StoreError

NOTE = "command.json"


def default(names: Sequence[str], specification: Mapping[str, Any], dataset: Dataset) -> Path:
    """A folder under `runs` whose name is unique to the specification.

    The same command finds its run again, and no other command uses that folder.
    """
    everything = [version("jdl"), specification, fingerprint(dataset)]
    digest = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
    return Path("runs", "-".join([*names, digest[:6]]))


@contextlib.contextmanager
def noted(folder: Path, note: Mapping[str, Any], same: Sequence[str] = ()) -> Iterator[None]:
    """Writes `note` and the command into the folder of the run that starts inside.

    Args:
      folder: created if it does not exist, and removed if no run starts in it.
      note: what `read_note` will give.
      same: the entries of `note` in which an existing run must agree.

    Raises:
      StoreError: an existing run does not agree.
      OSError: the folder cannot be written.
    """
    path = folder / NOTE
    made = [] if folder.exists() else [folder]
    # A command that was killed earlier left its note, but no run.
    if path.exists() and (folder / "run.sqlite").exists():
        before = read_note(folder)
        differences = [
            f"  {name}: {before.get(name)} there, {note[name]} now"
            for name in same
            if before.get(name) != note[name]
        ]
        if differences:
            raise StoreError(
                f"{folder} holds a run of another specification:\n"
                + "\n".join(differences)
                + "\nGive another folder, or the same options to go on with that run."
            )
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            command = shlex.join(["jdl", *sys.argv[1:]])
            text = json.dumps({"command": command, **note}, indent=2) + "\n"
            write_atomically(path, text.encode())
        except OSError as error:
            raise StoreError(
                f"The folder {folder} cannot be written: {error.strerror}. Give another one with "
                "--out."
            ) from error
    try:
        yield
    finally:
        if not (folder / "run.sqlite").exists():
            path.unlink(missing_ok=True)
            (folder / "lock").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                for empty in made:
                    empty.rmdir()


def read_note(folder: Path) -> dict[str, Any]:
    """The note in a run's folder; empty if it is missing or unreadable."""
    try:
        note = json.loads((folder / NOTE).read_text())
        return note if isinstance(note, dict) else {}
    except (OSError, ValueError):
        return {}
