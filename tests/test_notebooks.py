"""The notebooks: what is kept is what the text gives, and each runs from its text."""

from __future__ import annotations

import importlib.util
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py"))
names = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def script():
    for needed in ("jupytext", "nbclient", "PIL"):  # the `notebooks` extra
        pytest.importorskip(needed)
    spec = importlib.util.spec_from_file_location("execute", ROOT / "notebooks" / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outputs(notebook):
    return [(cell, output) for cell in notebook.cells for output in cell.get("outputs", [])]


@names
def test_what_is_kept_belongs_to_the_text_and_ran_to_its_end(path, script):
    import nbformat

    text = script.from_text(path)
    kept_path = path.with_suffix(".ipynb")
    kept = nbformat.read(kept_path, as_version=4)
    again = f"run `python notebooks/execute.py {path.stem}`"
    assert [(c.cell_type, c.source) for c in kept.cells] == [
        (c.cell_type, c.source) for c in text.cells
    ], f"{kept_path.name} is stale: {again}"
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), again
    assert not [o for _, o in outputs(kept) if o.output_type == "error"]
    assert not [o for _, o in outputs(kept) if o.get("name") == "stderr"], "a warning is kept"
    assert kept_path.stat().st_size < 500_000
    # It opens with its claim, shows a picture, and ends with the claim as assertions.
    assert re.match(r"# .+\n\n\*\*Claims?\.\*\*", kept.cells[0].source)
    assert any("image/png" in o.get("data", {}) for _, o in outputs(kept))
    assert "assert " in kept.cells[-1].source


def test_every_claim_is_listed_with_a_notebook_and_a_test():
    readme = (ROOT / "README.md").read_text()
    tests = (ROOT / "tests" / "test_claims.py").read_text()
    listed = re.findall(r"^(\d+)\. .*?\]\(notebooks/(\w+)\.ipynb\)", readme, re.M | re.S)
    assert [int(number) for number, _ in listed] == list(range(1, 15))
    stems = {path.stem for path in NOTEBOOKS}
    for number, stem in listed:
        assert stem in stems
        assert f"def test_{number}_" in tests


@pytest.mark.slow
@names
def test_it_executes(path, script):
    script.execute(path)
