"""The page of formulas says what the docstrings say."""

import importlib.util
import pathlib

from jdl import optim
from jdl.optim.solvers.least_squares import LEAST_SQUARES
from jdl.optim.solvers.minimize import DIRECTIONS

SCRIPT = pathlib.Path(__file__).parents[2] / "docs" / "optimizers.py"


def test_the_page_is_up_to_date_and_complete():
    spec = importlib.util.spec_from_file_location("document", SCRIPT)
    document = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(document)
    page = document.page()
    assert document.PAGE.read_text() == page, "run `python docs/optimizers.py`"
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    names = {line.split("`")[1] for line in rows}
    assert set(document.OPTIMIZERS) | set(document.SCHEDULES.split()) < names
    for line in rows:
        assert line.split(" | ")[1].strip(), f"no formula: {line}"


def test_the_page_explains_every_status_and_the_counts_of_every_method():
    text = SCRIPT.with_suffix(".md").read_text()
    for number, name in enumerate(
        ("CONVERGED", "MAX_ITERATIONS", "LINE_SEARCH_FAILED", "NOT_FINITE", "STALLED")
    ):
        assert getattr(optim, name) == number and f"| {number} `{name}` |" in text
    assert len(optim.STATUS_MESSAGES) == number + 1
    counts = text.split("`evaluations` counts")[1]
    for method in (*DIRECTIONS, *LEAST_SQUARES):
        assert f"`{method}`" in counts
