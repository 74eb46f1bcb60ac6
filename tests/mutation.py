"""Judges test files by breaking the code they test: `python tests/mutation.py src/jdl/tree.py`.

Each mutant changes one operator, number, condition, or the order of two
arguments, in the memory of a worker process: no file is ever changed. A mutant
that no test notices has survived; the survivors that mean the same as the
original are listed, each with its reason, in tests/equivalent_mutants.toml.
`--sample 12 --seed 1` tries a random dozen of each file's mutants instead of all.
`--json FILE` keeps what was found there, file by file, with the survivors.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib.machinery
import json
import os
import pathlib
import random
import select
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
EQUIVALENT = ROOT / "tests" / "equivalent_mutants.toml"
# The tests of a source file where they are not tests/<folder>/test_<file>.py.
FORMS = ("nn/test_convolution_forms.py", "nn/test_convolution_primitive.py")
ELSEWHERE = {
    "data/arrays.py": ("data/test_arrays.py",),
    "data/delimited.py": ("data/test_csv.py",),
    "data/split.py": ("data/test_arrays.py", "data/test_dataset.py"),
    "models/convnet.py": ("models/test_convnets.py",),
    "models/resnet.py": ("models/test_convnets.py",),
    "models/vgg.py": ("models/test_convnets.py",),
    "nn/convolution_accelerator.py": FORMS,
    "nn/convolution_cpu.py": FORMS,
    "nn/convolution_spec.py": FORMS,
    "sweep/dimension.py": ("sweep/test_space.py",),
    "sweep/population.py": ("sweep/test_evolution.py", "sweep/test_population.py"),
    "optim/matrix/_axes.py": ("optim/matrix/test_shampoo.py", "optim/matrix/test_soap.py"),
    "optim/schedules/cycle.py": ("optim/schedules/test_schedules.py",),
    "optim/schedules/decay.py": ("optim/schedules/test_schedules.py",),
    "optim/schedules/join.py": ("optim/schedules/test_schedules.py",),
    "optim/solvers/descend.py": ("optim/solvers/test_minimize.py",),
    "optim/solvers/direction.py": (
        "optim/solvers/test_direction.py",
        "optim/solvers/test_newton.py",
        "optim/solvers/test_rate_descent.py",
    ),
    "optim/solvers/gauss_newton.py": ("optim/solvers/test_least_squares.py",),
    "optim/solvers/marquardt.py": ("optim/solvers/test_least_squares.py",),
    "optim/solvers/solution.py": ("optim/solvers/test_minimize.py",),
}
# Beside the tests of a file, those that hold a whole folder's names and defaults.
BESIDE = {
    "models": ("nn/test_defaults.py",),
    "nn": ("nn/test_defaults.py",),
    "optim": ("optim/test_document.py",),
    "optim/solvers": ("optim/test_document.py", "optim/solvers/test_defaults.py"),
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
TWINS = {
    "maximum": "minimum", "minimum": "maximum", "max": "min", "min": "max",
    "sin": "cos", "cos": "sin", "floor": "ceil", "ceil": "floor",
    "sum": "mean", "mean": "sum", "zeros_like": "ones_like", "ones_like": "zeros_like",
    "zeros": "ones", "ones": "zeros", "all": "any", "any": "all",
}  # fmt: skip
SYMMETRIC = {"maximum", "minimum", "logical_and", "logical_or", "promote_types", "max", "min"}
ALIASES = {"Callable", "Mapping", "Sequence", "dict", "list", "tuple"}  # of types
SILENT = (ast.Raise, ast.JoinedStr, ast.Assert, ast.Import, ast.ImportFrom)

Change = Callable[[], None]


def _set(node: ast.AST, field: str, value: object) -> Change:
    return lambda: setattr(node, field, value)


def _swap(items: list[ast.expr], i: int) -> Change:
    def change() -> None:
        items[i], items[i + 1] = items[i + 1], items[i]

    return change


def changes(node: ast.AST) -> Iterator[Change]:
    """The changes of `node` itself, each as a function that makes it."""
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in OPERATORS:
        yield _set(node, "op", OPERATORS[type(node.op)]())
    if isinstance(node, ast.AugAssign) and type(node.op) in OPERATORS:
        yield _set(node, "op", OPERATORS[type(node.op)]())
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            if type(op) in OPERATORS:
                flipped = [*node.ops[:i], OPERATORS[type(op)](), *node.ops[i + 1 :]]
                yield _set(node, "ops", flipped)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield _set(node, "op", ast.UAdd())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield _set(node, "operand", ast.UnaryOp(ast.Not(), node.operand))
    if isinstance(node, ast.If | ast.IfExp):
        yield _set(node, "test", ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield _set(node, "value", not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield _set(node, "value", node.value + 1)
        if isinstance(node.value, float) and node.value not in (0, 1):
            yield _set(node, "value", node.value * 2)
    if isinstance(node, ast.Attribute) and node.attr in TWINS:
        yield _set(node, "attr", TWINS[node.attr])
    sequence = node.args if isinstance(node, ast.Call) else getattr(node, "elts", [])
    # The members of a set have no order.
    sequence = [] if isinstance(node, ast.Set) else sequence
    if isinstance(node, ast.Call):
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        sequence = [] if called in SYMMETRIC else sequence
    for i in range(len(sequence) - 1):
        a, b = sequence[i], sequence[i + 1]
        alike = not isinstance(a, ast.Starred | ast.Lambda) and not isinstance(b, ast.Starred)
        if alike and ast.dump(a) != ast.dump(b) and not (_named(a) and _named(b)):
            yield _swap(sequence, i)


def _named(node: ast.expr) -> bool:
    """Whether `node` is a row of a table that begins with its name: rows may stand in any order."""
    return isinstance(node, ast.Tuple) and isinstance(
        getattr(node.elts[0] if node.elts else None, "value", None), str
    )


def _is_alias(node: ast.expr) -> bool:
    """Whether `node` is a type, which nothing looks at while code runs."""
    return isinstance(node, ast.Subscript) and getattr(node.value, "id", None) in ALIASES


def sites(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of code that runs: not annotations, messages, decorators or docstrings."""
    if isinstance(node, SILENT):
        return
    yield node
    for name, field in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "type_comment"):
            continue
        if isinstance(node, ast.ExceptHandler) and name == "type":
            continue
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id in ("__all__", "Mask")
            for target in node.targets
        ):
            continue
        if isinstance(node, ast.Assign) and _is_alias(node.value):
            continue
        for child in field if isinstance(field, list) else [field]:
            if isinstance(child, ast.AST):
                yield from sites(child)


def mutants(source: str) -> Iterator[tuple[int, str, str, str]]:
    """Each mutant as (line, the statement before, the statement after, the whole source)."""
    count = sum(len(list(changes(node))) for node in sites(ast.parse(source)))
    for wanted in range(count):
        tree = ast.parse(source)
        made = ((node, change) for node in sites(tree) for change in changes(node))
        node, change = next(pair for i, pair in enumerate(made) if i == wanted)
        statement = _statement(tree, node)
        before = _shown(statement)
        change()
        yield node.lineno, before, _shown(statement), ast.unparse(ast.fix_missing_locations(tree))


def _statement(tree: ast.AST, node: ast.AST) -> ast.AST:
    """The innermost statement (or argument list) that contains `node`."""
    found: ast.AST = tree
    for candidate in ast.walk(tree):
        if isinstance(candidate, ast.stmt) and any(child is node for child in ast.walk(candidate)):
            found = candidate
    return found


def _shown(statement: ast.AST) -> str:
    head = copy.deepcopy(statement)
    for field in ("body", "orelse"):
        if isinstance(getattr(head, field, None), list):
            setattr(head, field, [ast.Pass()] if field == "body" else [])
    return " ".join(ast.unparse(ast.fix_missing_locations(head)).split()).removesuffix(" pass")


def load_instead(replaced: dict[str, str]) -> None:
    """Has each file that is a key of `replaced` imported as its value, read anew at each import."""
    original = importlib.machinery.SourceFileLoader.get_data

    def get_data(self: importlib.machinery.SourceFileLoader, path: str) -> bytes:
        if path.endswith(".pyc") and str(ROOT) in path:
            raise OSError("compiled code of a mutated file is stale")
        here = os.path.abspath(path)
        return replaced[here].encode() if here in replaced else original(self, path)

    importlib.machinery.SourceFileLoader.get_data = get_data  # type: ignore[method-assign]
    sys.dont_write_bytecode = True


def forget() -> None:
    """Drops every module of the project and of its tests, so that the next import reads it anew."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name.split(".")[0] in ("jdl", "tests") or file.startswith(str(ROOT / "tests")):
            del sys.modules[name]


def work() -> None:
    """The worker: reads a file, a mutant's number (-1: the original) and tests; 1 where they fail.

    One process runs many mutants, and what XLA compiled for one serves the
    others, through jax's own cache too.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    sys.path.insert(0, str(ROOT / "src"))
    import jax
    import pytest

    settings, update = set(), jax.config.update

    def update_once(name: str, value: object) -> None:
        # The number of devices cannot be set again once a backend runs.
        if name not in settings:
            update(name, value)
        settings.add(name)

    jax.config.update = update_once
    flags = ["-x", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-m", "not slow and not gpu"]
    broken: dict[str, list[str]] = {}
    replaced: dict[str, str] = {}
    load_instead(replaced)
    for line in sys.stdin:
        file, number, tests = json.loads(line)
        replaced.clear()
        if number >= 0:
            if file not in broken:
                broken[file] = [mutant for *_, mutant in mutants((ROOT / file).read_text())]
            replaced[str(ROOT / file)] = broken[file][number]
        forget()
        answers.write(f"{int(pytest.main([*tests, *flags, '--tb=no']) != 0)}\n")


class Worker:
    """The worker process, started anew when a mutant hangs or kills it."""

    def __init__(self, seconds: float, cache: str) -> None:
        self.seconds = seconds
        self.environment = os.environ | {
            "JDL_CACHE_DIR": "",  # a mutant lives in memory: the cache would give its original
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
        }
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
        )

    def judge(self, file: str, number: int, tests: list[str], factor: float = 1.0) -> str:
        """What became of a mutant: "survived", "dead", or "hung" where no answer came in time."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([file, number, tests]) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], self.seconds * factor)
        answer = self.process.stdout.readline().strip() if ready else "hung"
        if answer not in ("0", "1"):
            self.stop()
            self.start()
        return {"0": "survived", "hung": "hung"}.get(answer, "dead")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def excused() -> set[tuple[str, str, str]]:
    """The mutants that are known to mean the same as the original."""
    if not EQUIVALENT.exists():
        return set()
    listed = tomllib.loads(EQUIVALENT.read_text())["mutant"]
    return {(each["file"], each["before"], each["after"]) for each in listed}


def tests_of(file: str) -> list[str]:
    """The test files that judge the source file `file`."""
    inside = pathlib.PurePosixPath(file).relative_to("src/jdl")
    mirror = inside.parent / f"test_{inside.stem.strip('_')}.py"
    own = ELSEWHERE.get(str(inside), (mirror,))
    beside = BESIDE.get(str(inside.parent), BESIDE.get(inside.parts[0], ()))
    return [f"tests/{path}" for path in (*own, *beside)]


def run(worker: Worker, file: str, options: argparse.Namespace) -> dict[str, Any]:
    """Tries the mutants of one file: how many there are, were tried and died, and the survivors."""
    tests = options.tests or tests_of(file)
    tests = [*tests, *(["-k", options.k] if options.k else [])]
    start = time.time()
    if worker.judge(file, -1, tests, factor=5) != "survived":
        sys.exit(f"The tests fail on the code as it is: {' '.join(tests)}")
    alone = time.time() - start
    low, high = map(int, options.lines.split("-"))
    known, listed = excused(), list(enumerate(mutants((ROOT / file).read_text())))
    listed = [each for each in listed if low <= each[1][0] <= high]
    chosen = [each for each in listed if (file, *each[1][1:3]) not in known]
    equivalent, total = len(listed) - len(chosen), len(chosen)
    if options.sample and options.sample < total:
        rng = random.Random(f"{file} {options.seed}")
        chosen = sorted(rng.sample(chosen, options.sample), key=lambda each: each[0])
    counts, survivors = {"dead": 0, "hung": 0, "survived": 0}, []
    for number, (line, before, after, _) in chosen:
        found = worker.judge(file, number, tests)
        counts[found] += 1
        if found != "dead":
            print(f"{file}:{line} {found}\n    {before}\n    {after}", flush=True)
        if found == "survived":
            survivors.append({"line": line, "before": before, "after": after})
    if worker.judge(file, -1, tests, factor=5) != "survived":
        sys.exit("The tests fail on the code as it is after the mutants: one left something.")
    killed = len(chosen) - counts["survived"]
    sampled = f" of a sample from {total}" if len(chosen) < total else ""
    print(
        f"{file}: {killed}/{len(chosen)} dead{sampled}, {counts['hung']} of them by time-out, "
        f"{equivalent} equivalent; {time.time() - start:.0f} s, the tests alone {alone:.0f} s",
        flush=True,
    )
    return {
        "dead": killed,
        "tried": len(chosen),
        "of": total,
        "by time-out": counts["hung"],
        "equivalent": equivalent,
        "survivors": survivors,
    }


def keep(path: pathlib.Path, file: str, found: dict[str, Any]) -> None:
    """Writes what was found of one source file into the JSON file `path`, beside the others."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(kept | {file: found}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="the source files to break")
    parser.add_argument("--tests", nargs="*", help="test files; default tests/<folder>/test_<file>")
    parser.add_argument("-k", default="", help="only tests that match, as for pytest")
    parser.add_argument("--lines", default="0-1000000", help="only these lines, as in 40-80")
    parser.add_argument("--sample", type=int, default=0, help="so many random mutants of each file")
    parser.add_argument("--seed", type=int, default=0, help="which sample")
    parser.add_argument("--seconds", type=float, default=120, help="when a mutant counts as hung")
    parser.add_argument("--json", type=pathlib.Path, help="where to keep what was found")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    files = [
        (pathlib.Path.cwd() / file).resolve().relative_to(ROOT).as_posix() for file in options.files
    ]
    if options.json:
        options.json = options.json.resolve()
    os.chdir(ROOT)
    if options.worker:
        return work()
    killed = total = 0
    with tempfile.TemporaryDirectory() as cache:
        worker = Worker(options.seconds, cache)
        try:
            for file in files:
                found = run(worker, file, options)
                killed, total = killed + found["dead"], total + found["tried"]
                if options.json:
                    keep(options.json, file, found)
        finally:
            worker.stop()
    if len(files) > 1:
        print(f"{len(files)} files: {killed}/{total} dead ({int(1000 * killed / total) / 10} %)")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
