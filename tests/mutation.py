"""Judges a test file by breaking the code it tests: `python tests/mutation.py src/jdl/tree.py`.

Each mutant changes one operator, number, condition, or the order of two
arguments. It lives in a process of its own: no file is ever changed. A mutant
that no test notices has survived; the survivors that mean the same as the
original are listed, each with its reason, in tests/equivalent_mutants.toml.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib.machinery
import os
import pathlib
import select
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
EQUIVALENT = ROOT / "tests" / "equivalent_mutants.toml"
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
SYMMETRIC = {"maximum", "minimum", "logical_and", "logical_or", "promote_types"}
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
    if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in SYMMETRIC:
        sequence = []
    for i in range(len(sequence) - 1):
        a, b = sequence[i], sequence[i + 1]
        alike = not isinstance(a, ast.Starred | ast.Lambda) and not isinstance(b, ast.Starred)
        if alike and ast.dump(a) != ast.dump(b):
            yield _swap(sequence, i)


def sites(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of code that runs: not annotations, messages, decorators or docstrings."""
    if isinstance(node, SILENT):
        return
    yield node
    for name, field in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "type_comment"):
            continue
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id in ("__all__", "Mask")
            for target in node.targets
        ):
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


def load_instead(target: pathlib.Path, replaced: dict[str, str]) -> None:
    """Has the file at `target` imported as `replaced["source"]`, read anew at each import."""
    original = importlib.machinery.SourceFileLoader.get_data

    def get_data(self: importlib.machinery.SourceFileLoader, path: str) -> bytes:
        if path.endswith(".pyc") and f"{target.stem}." in os.path.basename(path):
            raise OSError("compiled code of a mutated file is stale")
        is_target = os.path.abspath(path) == str(target)
        return replaced["source"].encode() if is_target else original(self, path)

    importlib.machinery.SourceFileLoader.get_data = get_data  # type: ignore[method-assign]
    sys.dont_write_bytecode = True


def forget() -> None:
    """Drops every module of the project and of its tests, so that the next import reads it anew."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name.split(".")[0] == "jdl" or file.startswith(str(ROOT / "tests")):
            del sys.modules[name]


def work(target: pathlib.Path, tests: list[str]) -> None:
    """A worker: reads the number of a mutant (-1 for the original), answers 1 where tests failed.

    One process runs many mutants, so that what jax compiled for one operation on one
    shape serves them all.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    import jax
    import pytest

    settings, update = set(), jax.config.update

    def update_once(name: str, value: object) -> None:
        # The number of devices cannot be set again once a backend runs.
        if name not in settings:
            update(name, value)
        settings.add(name)

    jax.config.update = update_once
    source = target.read_text()
    broken = [mutant for *_, mutant in mutants(source)]
    replaced = {"source": source}
    load_instead(target, replaced)
    flags = ["-x", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-m", "not slow and not gpu"]
    for line in sys.stdin:
        replaced["source"] = source if int(line) < 0 else broken[int(line)]
        forget()
        answers.write(f"{int(pytest.main([*tests, *flags, '--tb=no']) != 0)}\n")


class Workers:
    """The worker process, started anew when a mutant hangs or kills it."""

    def __init__(self, command: list[str], seconds: float) -> None:
        self.command, self.seconds = command, seconds
        self.start()

    def start(self) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, text=True)

    def survives(self, number: int, factor: float = 1.0) -> bool:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], self.seconds * factor)
        answer = self.process.stdout.readline().strip() if ready else ""
        if not answer:
            self.process.kill()
            self.process.wait()
            self.start()
        return answer == "0"


def excused() -> set[tuple[str, str, str]]:
    """The mutants that are known to mean the same as the original."""
    if not EQUIVALENT.exists():
        return set()
    listed = tomllib.loads(EQUIVALENT.read_text())["mutant"]
    return {(each["file"], each["before"], each["after"]) for each in listed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="the source file to break")
    parser.add_argument("--tests", nargs="*", help="test files; default tests/<folder>/test_<file>")
    parser.add_argument("-k", default="", help="only tests that match, as for pytest")
    parser.add_argument("--lines", default="0-1000000", help="only these lines, as in 40-80")
    parser.add_argument("--seconds", type=float, default=120, help="a slower mutant counts as dead")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    target = (pathlib.Path.cwd() / options.file).resolve()
    relative = target.relative_to(ROOT).as_posix()
    parts = target.relative_to(ROOT / "src" / "jdl")
    default = ROOT / "tests" / parts.parent / f"test_{parts.stem.strip('_')}.py"
    tests = [*(options.tests or [str(default)]), *(["-k", options.k] if options.k else [])]
    low, high = map(int, options.lines.split("-"))

    os.chdir(ROOT)
    if options.worker:
        return work(target, tests)
    workers = Workers([sys.executable, __file__, *sys.argv[1:], "--worker"], options.seconds)
    start = time.time()
    if not workers.survives(-1, factor=5):
        sys.exit(f"The tests fail on the code as it is: {' '.join(tests)}")
    known, dead, alive, equivalent = excused(), 0, [], 0
    for number, (line, before, after, _) in enumerate(mutants(target.read_text())):
        if not low <= line <= high:
            continue
        if (relative, before, after) in known:
            equivalent += 1
        elif workers.survives(number):
            alive.append((line, before, after))
            print(f"{relative}:{line} survived\n    {before}\n    {after}", flush=True)
        else:
            dead += 1
    if not workers.survives(-1, factor=5):
        sys.exit(
            "The tests fail on the code as it is after the mutants: one left something behind."
        )
    workers.process.kill()
    total = dead + len(alive)
    share = 100 * dead / total if total else 100.0
    print(
        f"{relative}: {total} mutants, {dead} dead ({share:.1f} %), {len(alive)} survived, "
        f"{equivalent} equivalent, {time.time() - start:.0f} s"
    )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
