"""The command line: `jdl check`, `jdl sweep`, `jdl train`, `jdl report`, `jdl doctor`.

Heavy packages are imported inside the commands, so that help is quick.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

DESCRIPTION = """Train a thousand networks as one JAX program.

Start with `jdl sweep`: it trains 720 small networks on hand-written digits, six
optimizers at thirty learning rates, and shows which wins. Each command explains
itself: `jdl sweep --help`.

`jdl --version` prints the version. JDL_DEBUG=1 in the environment shows where
an error came from. Exit codes: 0 done, 1 something is wrong (doctor, check),
2 an error, 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` (by default the process's arguments) names.

    Returns:
      The exit code: 0 done, 1 the doctor or the check found something wrong, 2 an
      error, 130 an interruption.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        from importlib.metadata import version

        print(f"jdl {version('jdl')}")
        return 0
    debug = os.environ.get("JDL_DEBUG", "0") not in ("", "0") or "--debug" in arguments
    try:
        return _run([a for a in arguments if a != "--debug"] or ["--help"])
    except KeyboardInterrupt as interruption:
        return _interrupted(interruption, arguments)
    except Exception as error:
        if debug or not _is_expected(error):
            raise
        notes = [note for note in getattr(error, "__notes__", ()) if note]
        print("\n".join([f"error: {error}", *notes]), file=sys.stderr)
        return 2


def _run(arguments: list[str]) -> int:
    import tyro

    from jdl.cli.check import Check
    from jdl.cli.doctor import Doctor
    from jdl.cli.report import Report
    from jdl.cli.sweep import Sweep
    from jdl.cli.train import Train

    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
    commands: dict[str, Callable[..., Any]] = {
        "sweep": Sweep,
        "train": Train,
        "check": Check,
        "report": Report,
        "doctor": Doctor,
    }
    command = tyro.extras.subcommand_cli_from_dict(
        commands, prog="jdl", description=DESCRIPTION, args=arguments, config=config
    )
    return command.run()


def _is_expected(error: Exception) -> bool:
    """Whether the message suffices without a traceback: arguments, data, folders, a full device."""
    if isinstance(error, ValueError | OSError | ModuleNotFoundError | MemoryError):
        return True
    return type(error).__name__ == "JaxRuntimeError"


def _interrupted(interruption: KeyboardInterrupt, arguments: list[str]) -> int:
    from jdl.engine.interrupt import Interrupted

    text = "Interrupted."
    if isinstance(interruption, Interrupted):
        text = f"{interruption}\nTo resume: jdl {shlex.join(arguments)}"
    print(text, file=sys.stderr)
    return 130
