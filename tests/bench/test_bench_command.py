"""`jdl bench` from arguments to tables, record and picture; its figures are not tested here."""

import contextlib
import io
import json
import re

import jax
import pytest
from rich.console import Console

from jdl import cli
from jdl.bench import report
from jdl.bench.measurement import Measurement
from jdl.bench.record import Record, read, write
from jdl.bench.run import measured
from jdl.plot.roofline import roofline_figure


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The folder of a quick bench, its exit code, output and progress."""
    folder = tmp_path_factory.mktemp("quick") / "new" / "bench"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(["bench", "--quick", "--out", str(folder)])
    return folder, code, out.getvalue(), err.getvalue()


def test_tables_have_units_and_fit_eighty_columns(quick):
    folder, code, out, err = quick
    assert code == 0
    tables = out.partition("record:")[0]
    assert max(map(len, tables.splitlines())) <= 80
    for text in ("GFLOP/s", "GB/s", "time", "ms", "MFU", "trials/s", "trial-step", "MiB", "Quick"):
        assert text in tables, text
    for name in ("matmul float32", "copy", "momentum", "muon", "dense", "conv2d 3x3", "mlp", "cnn"):
        assert re.search(rf"^ *{name} ", tables, re.M), name
    assert f"{folder}/bench.json" in out.replace("\n", "")
    assert "0/11 measured, 0 s: matmul float32" in err and "/11 measured" in err.splitlines()[-1]


def test_the_record_has_the_machine_and_every_measurement(quick):
    result = json.loads((quick[0] / "bench.json").read_text())
    assert result["format"] == "jdl bench 1" and result["quick"] and result["left_out"] == []
    assert {"device", "devices", "cpu", "cores", "versions", "date"} <= result["machine"].keys()
    assert {"jdl", "jax", "jaxlib", "numpy"} <= result["machine"]["versions"].keys()
    assert "traced program" in result["counting"]
    rows = result["measurements"]
    groups = [row["group"] for row in rows]
    assert [*dict.fromkeys(groups)] == ["ceilings", "updates", "layers", "steps", "lanes"]
    for row in rows:
        assert len(row["seconds"]) >= 2 and min(row["seconds"]) > 0
        assert row["flops_per_second"] == pytest.approx(row["flops"] / row["median_seconds"])
        assert row["bytes"] > 0 and row["size"] and row["dtype"] == "float32"
    one, two = (row for row in rows if row["group"] == "lanes")
    assert two["details"]["lanes"] == 2 * one["details"]["lanes"] == 2 * jax.device_count()
    assert two["flops"] == 2 * one["flops"]
    assert two["details"]["program_bytes"] > one["details"]["program_bytes"] > 0
    assert one["details"]["steps"] == 10


def test_the_picture_is_made(quick):
    pytest.importorskip("matplotlib")
    assert (quick[0] / "roofline.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "roofline.png" in quick[2]


def run(arguments, capsys):
    code = cli.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_compare_shows_ratios(quick, tmp_path, capsys):
    here = quick[0] / "bench.json"
    record = read(here)
    slower = [m._replace(seconds=[2 * s for s in m.seconds]) for m in record.measurements]
    other = [slower[0]._replace(size="9x9"), *slower[1:-1]]
    write(record._replace(measurements=other), tmp_path / "b.json")
    code, out, _ = run(["bench", "--compare", here, tmp_path / "b.json"], capsys)
    assert code == 0 and f"A: {here}\n" in out
    ratios = re.findall(r" (\d\.\d+) *$", out, re.M)
    assert ratios == ["0.5"] * len(other)  # the last one is in A alone
    assert re.search(r"matmul \* ", out) and "* of different sizes" in out
    assert re.search(r"momentum .* GB/s", out) and re.search(r"dense .* GFLOP/s", out)
    assert re.search(r"lanes .* trials/s", out)


def test_what_cannot_be_compared(quick, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = quick[0] / "bench.json"
    record = json.loads(here.read_text())
    write(read(here)._replace(measurements=[]), tmp_path / "empty.json")
    row = record["measurements"][0]
    for name, text in {
        "no": "{broken",
        "list": "[1, 2]",
        "other": '{"machine": {}}',
        "cut": json.dumps({n: v for n, v in record.items() if n != "machine"}),
        "rowless": json.dumps({**record, "measurements": [{"group": "layers"}]}),
        "zero": json.dumps({**record, "measurements": [{**row, "seconds": [0.0]}]}),
    }.items():
        (tmp_path / f"{name}.json").write_text(text)
    for name, message in {
        "missing": r"missing\.json cannot be read: No such file",
        "no": r"no\.json is no record of `jdl bench`: Expecting",
        "list": r"list\.json is no record of `jdl bench`: it does not say that its format",
        "other": r"other\.json is no record of `jdl bench`: it does not say",
        "cut": r"cut\.json is no record of `jdl bench`: 'machine' is missing",
        "rowless": r"rowless\.json is no record of `jdl bench`: 'name' is missing",
        "zero": r"zero\.json is no record of `jdl bench`: a measurement has no positive",
        "empty": r"no measurement in common",
    }.items():
        code, out, err = run(["bench", "--compare", here, f"{name}.json"], capsys)
        assert code == 2 and not out and re.search(message, err), err
    code, _, err = run(["bench", "--quick", "--compare", here, here], capsys)
    assert code == 2 and "`--compare` measures nothing" in err


def test_a_folder_that_will_not_do_is_refused_before_anything_is_measured(
    quick, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("jdl.bench.run.jobs", lambda sizes: pytest.fail("something is measured"))
    (tmp_path / "file").write_text("")
    code, out, err = run(["bench", "--out", tmp_path / "file" / "run"], capsys)
    assert code == 2 and not out and "cannot be written: Not a directory" in err
    code, _, err = run(["bench", "--out", quick[0]], capsys)
    assert code == 2 and "holds a bench already, bench.json" in err


def test_an_interrupted_bench_leaves_nothing(tmp_path, capsys, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("jdl.bench.run.measured", interrupted)
    assert run(["bench", "--out", tmp_path / "run"], capsys)[0] == 130
    assert not (tmp_path / "run").exists()


def made_up(group, name, flops, moved, seconds, *, devices=1, dtype="float32", **details):
    times = [seconds * factor for factor in (1.0, 0.9, 1.2)]
    return Measurement(group, name, "128x32x32x256", dtype, devices, flops, moved, times, details)


def accelerators():
    """A record of four fast devices, whose points lie close to each other."""
    rows = []
    for devices in (1, 4):
        for dtype, seconds in (("float32", 3e-3), ("bfloat16", 1.4e-3)):
            product = made_up("ceilings", "matmul", 10**12, 10**9, seconds, dtype=dtype)
            scaled = product._replace(devices=devices, flops=devices * product.flops)
            rows.append(scaled)
        rows.append(made_up("ceilings", "copy", 1, devices * 2**31, 5e-4, devices=devices))
    for number, name in enumerate(("momentum", "adam", "adamw", "lion")):
        rows.append(made_up("updates", name, 10**9 + number, 2 * 10**9, 5e-4))
    for name in ("dense", "conv2d 3x3", "attention", "lstm"):
        rows.append(made_up("layers", name, 10**12, 10**9, 5e-3))
    rows += [made_up("steps", "transformer", 10**12, 10**9, 5e-3, dtype="bfloat16")]
    for lanes in (4, 16, 64, 4096):
        figures = {"lanes": lanes, "steps": 500, "program_bytes": 2**33, "compile_seconds": 12.3}
        name = f"{lanes} lanes"
        rows.append(made_up("lanes", name, 10**9, 10**8, 1e-3, devices=4, **figures))
    machine = {"platform": "gpu", "device": "NVIDIA H200", "devices": 4, "cpu": "Xeon"}
    machine |= {"cores": 224, "usable_cores": 16, "versions": {"jax": "0.10.2"}}
    machine |= {"python": "3.11.7", "date": "2026-12-01"}
    return Record(machine, False, 61.0, rows, ["layer lstm"])


def test_the_shares_of_accelerators_are_of_their_own_ceilings():
    record = accelerators()
    screen = Console(width=200, file=io.StringIO())
    for table in report.tables(record):
        screen.print(table)
    out = screen.file.getvalue()
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    # 2e9 bytes in 0.5 ms of a copy's 2**31; 1e12 FLOPs in 5 ms, where bfloat16 takes 1.4.
    assert rows["adam"][3:5] == ["4,000", "93"]
    assert rows["transformer"][:2] == ["bf16", "128x32x32x256"] and rows["transformer"][7] == "28"
    # One step of 4,096 lanes in 1 ms; four devices would make 4e12/3e-3 FLOP/s.
    assert rows["4,096"] == ["8,192", "15", "0.244", "1,000", "0", "8,192", "12.3"]
    assert "does not fit the device: layer lstm" in " ".join(report.notes(record))


def test_spread_is_the_distance_of_quartiles():
    row = made_up("layers", "dense", 1, 1, 1.0)
    assert row.median == 1.0 and row.spread == pytest.approx(1.1 - 0.95)
    assert row._replace(seconds=[3.0]).spread == 0.0


def test_labels_of_the_roofline_do_not_collide():
    pytest.importorskip("matplotlib")
    figure = roofline_figure(accelerators().measurements, "title")
    (axes,) = figure.axes
    assert axes.get_xscale() == axes.get_yscale() == "log"
    renderer = figure.canvas.get_renderer()
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in axes.texts}
    assert {"momentum", "transformer bf16", "4096 lanes", "copy 4,295 GB/s, 1 device"} <= {*boxes}
    assert len(boxes) == 13 + 6
    frame = axes.get_window_extent(renderer)
    for name, box in boxes.items():
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0, name
        others = [other for other in boxes if other != name and box.overlaps(boxes[other])]
        assert not others, (name, others)
    # The roofs of one device meet where a byte's time is that of its arithmetic.
    flats = [line.get_xydata() for line in axes.get_lines() if len({*line.get_ydata()}) == 1]
    height = 10**12 / 3e-3 / 1e9
    (flat,) = [line for line in flats if len(line) == 2 and line[0][1] == pytest.approx(height)]
    assert flat[0][0] == pytest.approx(height / (2**31 / 5e-4 / 1e9))


def test_what_does_not_fit_is_left_out():
    row = made_up("layers", "dense", 1, 1, 1.0)

    def full():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    def broken():
        raise jax.errors.JaxRuntimeError("INTERNAL: a defect")

    said = []
    to_do = {"one": lambda: row, "two": full, "three": lambda: row}
    made, left_out = measured(to_do, lambda number, title: said.append((number, title)))
    assert made == [row, row] and left_out == ["two"]
    assert said == [(0, "one"), (1, "two"), (2, "three")]
    with pytest.raises(jax.errors.JaxRuntimeError, match="a defect"):
        measured({"broken": broken}, lambda number, title: None)
