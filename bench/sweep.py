"""How many trials a second: a sweep by jdl and by its peers, the same work in one run.

A trial is an MLP 64-32-10 (ReLU) on the digits, batch 32, Adam at a learning rate drawn from
[1e-4, 1e-1], 500 steps, then the accuracy on the validation split.

    python bench/sweep.py                     # everything, in three rounds
    python bench/sweep.py --only jdl vmap     # some of it
    python bench/sweep.py --quick             # does it run at all
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

import harness


class Contestant(NamedTuple):
    """A row of the table."""

    title: str
    trials: int  # in a turn: slow ones run fewer
    needs: tuple[str, ...] = ()
    target: float | None = None  # the ratio that jdl is meant to reach
    quick: bool = True
    whole: bool = False  # its program depends on the number of trials


CONTESTANTS = {
    "jdl": Contestant("jdl: sweep.run", 1000),
    "jdl-folder": Contestant("jdl: sweep.run with a run's folder", 1000, quick=False),
    "jdl-program": Contestant("jdl's compiled program, no host loop", 1000, whole=True),
    "step": Contestant("optax: Python loop over a jitted step", 50, ("optax",)),
    "scan": Contestant("optax: one jitted scan per trial", 200, ("optax",), 3.0),
    "vmap": Contestant(
        "optax: vmap of that scan over all trials", 1000, ("optax",), 1.3, whole=True
    ),
    "vmap-replace": Contestant(
        "the same, batches drawn with replacement", 1000, ("optax",), quick=False, whole=True
    ),
    "vmap-2": Contestant(
        "that vmap, shard_map over the cores", 1000, ("optax",), quick=False, whole=True
    ),
    "torch": Contestant("PyTorch loop", 30, ("torch",), quick=False),
    "torch-compiled": Contestant("PyTorch loop, whole step compiled", 60, ("torch",), quick=False),
    "optuna": Contestant("Optuna + PyTorch, a process a core", 60, ("torch", "optuna"), 40.0),
    "optuna-compiled": Contestant(
        "Optuna + that compiled step, a process a core", 120, ("torch", "optuna"), quick=False
    ),
}
SANITY = 30  # the first trials of each, whose mean accuracy must agree
QUIET = 0.1  # cores that others may use in a turn


class Process:
    """A contestant's process, waiting for its turns."""

    def __init__(self, name: str, steps: int):
        self.name = name
        # Such flags would give every contestant the devices of one.
        devices = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
        environment = {k: v for k, v in os.environ.items() if k not in devices}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sweep_contestants", name, str(steps)],
            cwd=pathlib.Path(__file__).parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.compile_seconds = 0.0

    def wait(self) -> None:
        """Until it is ready for its first turn."""
        self.compile_seconds = self._answer()["compile_seconds"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self._process.wait()}.")
        return json.loads(line)

    def turn(self, rates: list[float]) -> dict[str, Any]:
        """Trains a trial for each rate; tells too how many cores others used meanwhile."""
        assert self._process.stdin is not None
        before, own, start = _busy_seconds(), _cpu_seconds(self._process.pid), time.perf_counter()
        self._process.stdin.write(json.dumps({"rates": rates}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        used = _busy_seconds() - before - _cpu_seconds(self._process.pid) + own
        return answer | {"others": used / (time.perf_counter() - start)}

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _busy_seconds() -> float:
    """CPU seconds that all processes used since the machine started, where Linux tells."""
    if not os.path.exists("/proc/stat"):
        return 0.0
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, soft, steal, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def _cpu_seconds(pid: int) -> float:
    """CPU seconds that a process and its children used."""
    process = pathlib.Path("/proc") / str(pid)
    if not process.exists():
        return 0.0
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    children = [c for task in (process / "task").iterdir() for c in _words(task / "children")]
    return own + sum(_cpu_seconds(int(child)) for child in children)


def _words(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:  # a thread that ended
        return []


def measure(names: list[str], rounds: int, tries: int, *, quick: bool = False) -> dict[str, Any]:
    """Lets every contestant have its turn, `rounds` times after one that warms up.

    A turn during which other processes worked too is taken again.

    Args:
      names: of the contestants.
      rounds: that count.
      tries: how often a turn is taken at most; the quietest counts.
      quick: few short trials, and contestants that compile all at once.
    """
    steps, scale = (20, 0.02) if quick else (500, 1.0)
    rates = np.exp(np.random.default_rng(0).uniform(np.log(1e-4), np.log(1e-1), 1000)).tolist()
    trials = {name: max(2, round(CONTESTANTS[name].trials * scale)) for name in names}
    processes: list[Process] = []
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    compiled: dict[str, list[float]] = {name: [] for name in names}
    try:
        for name in names:
            processes.append(Process(name, steps))
            if not quick:
                processes[-1].wait()
        for process in processes:
            if quick:
                process.wait()
                continue
            number = trials[process.name] if CONTESTANTS[process.name].whole else 2
            compiled[process.name].append(process.turn(rates[:number])["compile_seconds"])
        for number in range(rounds):
            for process in processes:
                taken: list[dict[str, Any]] = []
                while len(taken) < tries and (not taken or taken[-1]["others"] >= QUIET):
                    taken.append(process.turn(rates[: trials[process.name]]))
                best = min(taken, key=lambda turn: turn["others"])
                turns[process.name].append(best)
                compiled[process.name].append(best["compile_seconds"])
                speed = f"{best['trials'] / best['seconds']:.1f} trials/s"
                noise = f"others on {best['others']:.2f} cores"
                print(f"round {number + 1}: {process.name} {speed}, {noise}", file=sys.stderr)
    finally:
        for process in processes:
            process.close()
    before = {process.name: process.compile_seconds for process in processes}
    rows = {}
    for name in names:
        waited = [seconds for seconds in compiled[name] if seconds]
        speeds = [turn["trials"] / turn["seconds"] for turn in turns[name]]
        accuracy = turns[name][0]["accuracy"]
        rows[name] = {
            "title": CONTESTANTS[name].title,
            "trials": trials[name],
            "trials_per_second": speeds,
            "median": statistics.median(speeds),
            "compile_seconds": before[name] + statistics.median(waited or [0.0]),
            "accuracy": float(np.mean(accuracy)),
            "accuracy_first": float(np.mean(accuracy[:SANITY])),
            "others": [turn["others"] for turn in turns[name]],
            "notes": turns[name][0]["notes"],
        }
    for name in names:
        if "jdl" in rows and name != "jdl":
            ours, theirs = rows["jdl"]["trials_per_second"], rows[name]["trials_per_second"]
            low, middle, high = harness.median_ratio(ours, theirs)
            rows[name]["ratio"] = {"min": low, "median": middle, "max": high}
            rows[name]["target"] = CONTESTANTS[name].target
    return {
        "work": f"MLP 64-32-10 on digits, batch 32, Adam, {steps} steps a trial",
        "steps": steps,
        "rounds": rounds,
        "rows": rows,
    }


def table(result: dict[str, Any]) -> Table:
    """The result as a table that prints itself."""
    shown = Table(title=result["work"], title_justify="left", header_style="bold")
    shown.add_column("contestant")
    for heading in ("trials", "trials/s", "compile s", "jdl / it", "wanted", "accuracy"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in result["rows"].values():
        ratio, target = row.get("ratio"), row.get("target")
        speeds = row["trials_per_second"]
        shown.add_row(
            row["title"],
            str(row["trials"]),
            f"{row['median']:.1f} ({min(speeds):.1f}-{max(speeds):.1f})",
            f"{row['compile_seconds']:.1f}",
            f"{ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})" if ratio else "",
            f"{target:g}" if target else "",
            f"{row['accuracy_first']:.3f}",
        )
    return shown


def main() -> None:
    """Runs the bench, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tries", type=int, default=3, help="of a turn that others disturb")
    parser.add_argument("--quick", action="store_true", help="tiny: checks that it runs")
    parser.add_argument("--json", type=pathlib.Path, help="write here, not to results/sweep.json")
    options = parser.parse_args()
    names = options.only or [n for n, c in CONTESTANTS.items() if c.quick or not options.quick]
    needed = {name: CONTESTANTS[name].needs for name in names}
    for name, required in needed.items():
        if missing := [p for p in required if importlib.util.find_spec(p) is None]:
            print(f"{name} is left out: {', '.join(missing)} is not installed.")
            names.remove(name)
    rounds, tries = (1, 1) if options.quick else (options.rounds, options.tries)
    result = measure(names, rounds, tries, quick=options.quick)
    packages = sorted({package for name in names for package in needed[name]})
    result = {"machine": harness.machine(*packages), **result}
    Console(width=130).print(table(result))
    noise = max(max(row["others"]) for row in result["rows"].values())
    if noise >= QUIET:
        print(f"Not quiet: other processes kept {noise:.1f} cores busy during some turn.")
    text = json.dumps(result, indent=1) + "\n"
    if options.json is not None:
        options.json.write_text(text)
    elif not (options.quick or options.only):
        print(harness.record("sweep", result))


if __name__ == "__main__":
    main()
