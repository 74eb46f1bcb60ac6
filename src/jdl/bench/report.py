"""A record of a bench as tables of 80 columns, and two of them side by side."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from jdl.bench.ceilings import GROUP, bandwidth, peak
from jdl.bench.measurement import Measurement
from jdl.bench.record import Record

GROUPS = {
    "updates": "Optimizer updates of a tree of matrices",
    "layers": "Layers, forward and backward",
    "steps": "Training steps with Adam",
}


def heading(record: Record) -> list[str]:
    """The machine in two lines, and a warning if the sizes are small."""
    machine = record.machine
    versions = ", ".join(f"{n} {v}" for n, v in machine["versions"].items())
    many = machine["devices"]
    lines = [
        f"{many} {machine['platform']} device{'s' * (many != 1)} ({machine['device']}), "
        f"{machine['cpu']}, {machine['usable_cores']} of {machine['cores']} cores",
        f"{versions}, Python {machine['python']}, {machine['date']}",
    ]
    if record.quick:
        lines.append("Quick: sizes that show only that it runs. Compare no figure of it.")
    return lines


def tables(record: Record) -> list[Table]:
    """The ceilings; updates, layers and steps beside them; and lanes. Groups without rows are not.

    Args:
      record: as `write` and `read` know it.
    """
    of = record.measurements
    rows = {m.group: [other for other in of if other.group == m.group] for m in of}
    made = [_ceilings(rows[GROUP])] if GROUP in rows else []
    made += [_work(title, rows[group], of) for group, title in GROUPS.items() if group in rows]
    return [*made, _lanes(rows["lanes"], of)] if "lanes" in rows else made


def notes(record: Record) -> list[str]:
    """What the figures mean, and what was left out."""
    lines = [
        "Time is the median of rounds; spread the distance of its quartiles. FLOPs are counted "
        "from the traced program, bytes are arguments and results: neither is what the "
        "compiler says. Above 100 % of copy, caches help.",
    ]
    if record.left_out:
        lines.append(f"Left out, since it does not fit the device: {', '.join(record.left_out)}.")
    return lines


def label(m: Measurement) -> str:
    """The name, and the dtype where it is not float32."""
    return m.name if m.dtype == "float32" else f"{m.name} {m.dtype.replace('bfloat', 'bf')}"


def _ceilings(rows: Sequence[Measurement]) -> Table:
    table = _table("Ceilings", ["", "size"], ["devices", "time\nms", "spread\n%", "rate"])
    for m in rows:
        rate = f"{figure(m.bytes_per_second / 1e9)} GB/s"
        if m.name == "matmul":
            rate = f"{figure(m.flops_per_second / 1e9)} GFLOP/s"
        name = f"{m.name} {m.dtype}" if m.name == "matmul" else m.name
        _add(table, name, m.size, str(m.devices), _ms(m), _percent(m.spread), rate)
    return table


def _work(title: str, rows: Sequence[Measurement], of: Sequence[Measurement]) -> Table:
    beside = ["time\nms", "spread\n%", "\nGB/s", "% of\ncopy", "\nGFLOP/s", "MFU\n%"]
    table = _table(title, ["", "\nsize"], [*beside, "FLOP/\nbyte"])
    for m in rows:
        copied, most = bandwidth(of, m), peak(of, m)
        _add(
            table,
            label(m),
            m.size,
            _ms(m),
            _percent(m.spread),
            figure(m.bytes_per_second / 1e9),
            _percent(m.bytes_per_second / copied.bytes_per_second) if copied else "-",
            figure(m.flops_per_second / 1e9),
            _percent(m.flops_per_second / most.flops_per_second) if most else "-",
            figure(m.intensity),
        )
    return table


def _lanes(rows: Sequence[Measurement], of: Sequence[Measurement]) -> Table:
    first = rows[0]
    on = f"{first.devices} device{'s' * (first.devices != 1)}"
    title = f"{first.size}, trials of {first.details['steps']} steps, {on}"
    columns = ["lanes", "\ntrials/s", "spread\n%", "us a\ntrial-step", "\nGFLOP/s", "MFU\n%"]
    table = _table(title, [], [*columns, "MiB a\ndevice", "compile\ns"])
    for m in rows:
        most = peak(of, m)
        _add(
            table,
            f"{m.details['lanes']:,}",
            figure(trials_per_second(m)),
            _percent(m.spread),
            figure(1e6 * m.median / m.details["lanes"]),
            figure(m.flops_per_second / 1e9),
            _percent(m.flops_per_second / most.flops_per_second) if most else "-",
            figure(m.details["program_bytes"] / 2**20),
            f"{m.details['compile_seconds']:.1f}",
        )
    return table


def trials_per_second(m: Measurement) -> float:
    """Whole trials a second of a measurement of lanes."""
    return m.details["lanes"] / (m.median * m.details["steps"])


def compared(a: Record, b: Record) -> Table:
    """What both records measured, each one's rate, and how many times faster `b` is.

    Ceilings are those of all devices at once.

    Raises:
      ValueError: they have no measurement in common.
    """
    table = _table("Two benches", [""], ["A", "B", "unit", "B / A"])
    # Ceilings of one device come before those of all.
    ours, theirs = ({(m.group, m.name, m.dtype): m for m in r.measurements} for r in (a, b))
    pairs = [(m, theirs[key]) for key, m in ours.items() if key in theirs]
    if not pairs:
        raise ValueError("The two benches have no measurement in common.")
    group = ""
    for one, other in pairs:
        if one.group != group:
            group = one.group
            table.add_row(Text(group, style="bold"))
        (first, unit), (second, _) = rate(one), rate(other)
        _add(
            table,
            f"  {label(one)}{' *' * (one.size != other.size)}",
            figure(first),
            figure(second),
            unit,
            figure(second / first),
        )
    if any(one.size != other.size for one, other in pairs):
        table.caption = "* of different sizes"
        table.caption_justify = "left"
    return table


def rate(m: Measurement) -> tuple[float, str]:
    """The figure by which a measurement is judged, and its unit."""
    if m.group == "lanes":
        return trials_per_second(m), "trials/s"
    if m.name == "copy" or (m.group == "updates" and m.intensity < 2):
        return m.bytes_per_second / 1e9, "GB/s"
    return m.flops_per_second / 1e9, "GFLOP/s"


def _table(title: str, words: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=Text(title), title_style="", title_justify="left")
    table.box, table.show_edge, table.padding = box.SIMPLE_HEAD, False, (0, 0, 0, 1)
    for word in words:
        table.add_column(word, no_wrap=True)
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*map(Text, cells))


def _ms(m: Measurement) -> str:
    return figure(1e3 * m.median)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def figure(value: float) -> str:
    """A number with three figures, or all those before its point.

    >>> figure(12345.6), figure(12.345), figure(0.012345)
    ('12,346', '12.3', '0.0123')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
