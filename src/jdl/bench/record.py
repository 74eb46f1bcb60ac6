"""The record of a bench as JSON: the machine, and every measurement with each of its seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from jdl.bench.measurement import COUNTING, Measurement

FORMAT = "jdl bench 1"


class Record(NamedTuple):
    """What a bench found.

    Attributes:
      machine: as `machine` describes it.
      quick: whether the sizes are those that only check that it runs.
      seconds: that the whole bench took.
      measurements: in the order in which they were made.
      left_out: titles of those that did not fit the device's memory.
    """

    machine: dict[str, Any]
    quick: bool
    seconds: float
    measurements: list[Measurement]
    left_out: list[str]


# What the heading of a table says of the machine.
_SHOWN = ("platform", "device", "devices", "cpu", "cores", "usable_cores", "python", "date")


def write(record: Record, path: Path) -> None:
    """Writes `record` as JSON, with the rates that follow from it for other readers."""
    rows = [
        {
            **m._asdict(),
            "median_seconds": m.median,
            "flops_per_second": m.flops_per_second,
            "bytes_per_second": m.bytes_per_second,
        }
        for m in record.measurements
    ]
    result = {"format": FORMAT, "counting": COUNTING, **record._asdict(), "measurements": rows}
    path.write_text(json.dumps(result, indent=1) + "\n")


def read(path: Path) -> Record:
    """Reads what `write` wrote.

    Raises:
      OSError: the file cannot be read.
      ValueError: it holds no record of a bench; the message says why.
    """
    try:
        result = json.loads(path.read_text())
        if not isinstance(result, dict) or result.get("format") != FORMAT:
            raise ValueError(f"it does not say that its format is {FORMAT!r}")
        machine = result["machine"]
        if not (isinstance(machine, dict) and isinstance(machine.get("versions"), dict)):
            raise ValueError("it does not describe its machine")
        _ = [machine[name] for name in _SHOWN]
        rows = [
            Measurement(**{name: row[name] for name in Measurement._fields})
            for row in result["measurements"]
        ]
        if not all(m.seconds and min(m.seconds) > 0 and m.bytes > 0 for m in rows):
            raise ValueError("a measurement has no positive seconds or bytes")
        return Record(**{n: result[n] for n in Record._fields} | {"measurements": rows})
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror}.") from error
    except KeyError as error:
        raise ValueError(f"{path} is no record of `jdl bench`: {error} is missing.") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is no record of `jdl bench`: {error}.") from error
