"""Judges a test file by breaking the code it tests: `python tests/mutation.py src/jdl/tree.py`.

Each mutant changes one operator, number, condition, or the order of two
arguments. It lives in a forked process alone: no file is ever changed. A mutant
that no test notices has survived; the survivors that mean the same as the
original are listed, each with its reason, in tests/equivalent_mutants.txt.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib.machinery
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
EQUIVALENT = ROOT / "tests" / "equivalent_mutants.txt"
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
        if isinstance(node.value, float) and node.value != 0:
            yield _set(node, "value", node.value * 2)
    if isinstance(node, ast.Attribute) and node.attr in TWINS:
        yield _set(node, "attr", TWINS[node.attr])
    sequence = node.args if isinstance(node, ast.Call) else getattr(node, "elts", [])
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


def load_instead(target: pathlib.Path, source: str) -> None:
    """From here on, importing the file at `target` in this process loads `source`."""
    original = importlib.machinery.SourceFileLoader.get_data

    def get_data(self: importlib.machinery.SourceFileLoader, path: str) -> bytes:
        if path.endswith(".pyc") and f"{target.stem}." in os.path.basename(path):
            raise OSError("compiled code of a mutated file is stale")
        is_target = os.path.abspath(path) == str(target)
        return source.encode() if is_target else original(self, path)

    importlib.machinery.SourceFileLoader.get_data = get_data  # type: ignore[method-assign]
    sys.dont_write_bytecode = True


def survives(target: pathlib.Path, source: str, tests: list[str], seconds: float) -> bool:
    """Runs the tests against `source` in a forked process; a mutant that hangs is noticed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(int(seconds))
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            load_instead(target, source)
            import pytest

            code = int(pytest.main([*tests, "-x", "-q", "-p", "no:cacheprovider", "--tb=no"]))
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def excused() -> set[tuple[str, str, str]]:
    """The mutants that are known to mean the same as the original."""
    if not EQUIVALENT.exists():
        return set()
    lines = [line.split(" | ") for line in EQUIVALENT.read_text().splitlines() if " | " in line]
    return {(path, before, after) for path, before, after, _ in lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="the source file to break")
    parser.add_argument("--tests", nargs="*", help="test files; default tests/<folder>/test_<file>")
    parser.add_argument("-k", default="", help="only tests that match, as for pytest")
    parser.add_argument("--lines", help="only mutants of these lines, as in 40-80")
    parser.add_argument("--seconds", type=float, default=120, help="a slower mutant counts as dead")
    options = parser.parse_args()
    target = (pathlib.Path.cwd() / options.file).resolve()
    relative = target.relative_to(ROOT).as_posix()
    parts = target.relative_to(ROOT / "src" / "jdl")
    default = ROOT / "tests" / parts.parent / f"test_{parts.stem.strip('_')}.py"
    tests = [*(options.tests or [str(default)]), *(["-k", options.k] if options.k else [])]
    low, high = map(int, (options.lines or "0-1000000").split("-"))

    os.chdir(ROOT)
    source = target.read_text()
    # Imported before the forks so that each need not; no backend starts until a test uses one.
    import jax  # noqa: F401
    import pytest  # noqa: F401

    start = time.time()
    if not survives(target, source, tests, 10 * options.seconds):
        sys.exit(f"The tests fail on the code as it is: {' '.join(tests)}")
    print(f"{relative}: the tests take {time.time() - start:.0f} s", flush=True)
    known, dead, alive, equivalent = excused(), 0, [], 0
    for line, before, after, mutant in mutants(source):
        if not low <= line <= high:
            continue
        if (relative, before, after) in known:
            equivalent += 1
        elif survives(target, mutant, tests, options.seconds):
            alive.append((line, before, after))
            print(f"  survived, line {line}:\n    {before}\n    {after}", flush=True)
        else:
            dead += 1
    total = dead + len(alive)
    share = 100 * dead / total if total else 100.0
    print(
        f"{relative}: {total} mutants, {dead} dead ({share:.1f} %), {len(alive)} survived, "
        f"{equivalent} equivalent, {time.time() - start:.0f} s"
    )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
