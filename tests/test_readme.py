"""The README's Python runs as it stands there, on fewer trials."""

import pathlib
import re

import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.M | re.S)
FEWER = [("trials=1000, epochs=20", "trials=12, epochs=2")]


def shortened(block: str) -> str:
    for full, few in FEWER:
        block = block.replace(full, few)
    return block


def test_the_readme_holds_an_example_that_can_be_shortened():
    assert BLOCKS and any(full in block for block in BLOCKS for full, _ in FEWER)


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_example(index, tmp_path, monkeypatch):
    for package in re.findall(r"^(?:import|from) (\w+)", BLOCKS[index], re.M):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(shortened(BLOCKS[index]), f"README.md, block {index}", "exec"), names)
    if "results" in names:
        assert names["results"].count("done") > 0
        assert names["results"].best.params is not None
