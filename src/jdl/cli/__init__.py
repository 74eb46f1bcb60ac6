"""The command line: `jdl sweep`, `jdl check`, `jdl doctor` and the others, one module each.

Heavy packages are imported inside the commands, so that help is quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

DESCRIPTION = """Train a thousand networks as one JAX program.

Start with `jdl sweep`: it trains 720 small networks on hand-written digits, six
optimizers at thirty learning rates, and shows which wins. Each command explains
itself: `jdl sweep --help`.

`jdl --version` prints the version. JDL_DEBUG=1 in the environment shows where
an error came from. Exit codes: 0 done, 1 something is wrong (doctor, check),
2 an error, 130 ended by Ctrl-C, 143 ended by SIGTERM.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` names.

    Args:
      argv: the arguments; None takes the process's own, and answers its signals.

    Returns:
      The exit code: 0 done, 1 the doctor or the check found something wrong, 2 an
      error, 128 and the signal's number if a signal ended it.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = [argument for argument in given if argument != "--debug"]
    if argv is None:
        from jdl.cli import signals

        resumes = arguments[:1] in (["sweep"], ["train"])
        signals.answer("Interrupted." + " Run the same again to resume." * resumes)
    if arguments == ["--version"]:
        from importlib.metadata import version

        print(f"jdl {version('jdl')}")
        return 0
    debug = os.environ.get("JDL_DEBUG", "0") not in ("", "0") or "--debug" in given
    try:
        code = _run(arguments or ["--help"])
        if argv is None:
            signals.ignore()
        return code
    except KeyboardInterrupt as interruption:
        return _interrupted(interruption)
    except Exception as error:
        if debug or not _is_expected(error):
            raise
        notes = [note for note in getattr(error, "__notes__", ()) if note]
        print("\n".join([f"error: {error}", *notes]), file=sys.stderr)
        return 2


def _run(arguments: list[str]) -> int:
    import dataclasses
    from pathlib import Path

    import tyro

    from jdl._paths import expanded
    from jdl.cli.bench import Bench
    from jdl.cli.check import Check
    from jdl.cli.doctor import Doctor
    from jdl.cli.merge import Merge
    from jdl.cli.report import Report
    from jdl.cli.sweep import Sweep
    from jdl.cli.train import Train

    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
    commands: dict[str, Callable[..., Any]] = {
        "sweep": Sweep,
        "train": Train,
        "check": Check,
        "merge": Merge,
        "report": Report,
        "doctor": Doctor,
        "bench": Bench,
    }
    command = tyro.extras.subcommand_cli_from_dict(
        commands, prog="jdl", description=DESCRIPTION, args=arguments, config=config
    )
    given = {field.name: getattr(command, field.name) for field in dataclasses.fields(command)}
    paths = {name: expanded(value) for name, value in given.items() if isinstance(value, Path)}
    return dataclasses.replace(command, **paths).run()


def _is_expected(error: Exception) -> bool:
    """Whether the message suffices without a traceback: arguments, data, folders, a full device."""
    if isinstance(error, ValueError | OSError | ModuleNotFoundError | MemoryError):
        return True
    return type(error).__name__ == "JaxRuntimeError"


def _interrupted(interruption: KeyboardInterrupt) -> int:
    from jdl.cli import signals

    words = str(interruption) or "Interrupted."
    if signals.heard:
        sys.stdout.flush()
        signals.end(words, signals.heard[0])
    print(words, file=sys.stderr)
    return 130
