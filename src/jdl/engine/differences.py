"""What differs between the specifications of two runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# What a program is traced from besides make_trial.
_TRACED = ("batch_size", "data", "diverged_above", "report_every", "space", "steps")


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs in two specifications, a line each.

    A program is named only where nothing else says why it differs.

    >>> differences({"seed": 0, "data": {"train": 1}}, {"seed": 0, "data": {"train": 2}})
    ['  data.train: 1 there, 2 now']
    """
    there, now = _flat(before), _flat(after)
    keys = [key for key in sorted({*there, *now}) if there.get(key) != now.get(key)]
    said = any(key.partition(".")[0] in _TRACED for key in keys)
    lines = []
    for key in keys:
        program = key.removeprefix("programs.")
        if program == key:
            of = ", by `steps` or `epochs`" if key == "steps" else ""
            lines.append(
                f"  {key}: {there.get(key, 'nothing')} there, {now.get(key, 'nothing')} now{of}"
            )
        elif not said:
            which = f" for {program}" if program else ""
            lines.append(f"  make_trial{which} computes something else now")
    return lines


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """The entries of nested dicts by their dotted path, as JSON."""
    if not isinstance(value, dict):
        return {path: json.dumps(value)}
    flat: dict[str, str] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{path}.{key}" if path else str(key))
    return flat
