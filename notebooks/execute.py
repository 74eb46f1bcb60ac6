"""Executes the notebooks and keeps their outputs: `python notebooks/execute.py [NAME ...]`.

Each `NAME.py`, text in jupytext's percent format, becomes `NAME.ipynb` beside it, executed with
the package of this repository. Names may be shortened (`01`); none means all. Ends with an error
at the first cell that raises. Needs `pip install -e '.[notebooks]'`.
"""

from __future__ import annotations

import base64
import io
import os
import pathlib
import sys
import time
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = pathlib.Path(__file__).parent
PACKAGE = FOLDER.parent / "src"


def sources() -> list[pathlib.Path]:
    """The notebooks as text, in the order in which they are read."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.py"))


def from_text(path: pathlib.Path) -> Any:
    """The notebook of a text file, without outputs; cells are numbered, so that diffs are small."""
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index}"
        cell.metadata = {}
    return notebook


def execute(path: pathlib.Path) -> Any:
    """The notebook of a text file, executed; raises where a cell does."""
    notebook = from_text(path)
    search = os.pathsep.join(filter(None, [str(PACKAGE), os.environ.get("PYTHONPATH")]))
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--log-level=40"],  # errors: a warning that TCP is not encrypted is noise
    )
    client.execute(env={**os.environ, "PYTHONPATH": search}, cwd=str(FOLDER))
    return notebook


def shrink(notebook: Any) -> None:
    """Pictures with 256 colours, which are a third as large and look the same."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
                file = io.BytesIO()
                colours = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
                colours.save(file, "PNG", optimize=True)
                data["image/png"] = base64.b64encode(file.getvalue()).decode()


def main(names: list[str]) -> None:
    """Executes the notebooks whose names begin with one of `names`, or all."""
    chosen = [p for p in sources() if not names or any(p.stem.startswith(n) for n in names)]
    if not chosen:
        known = ", ".join(path.stem for path in sources())
        raise SystemExit(f"No notebook begins with {' or '.join(names)}: there are {known}.")
    for path in chosen:
        start = time.perf_counter()
        notebook = execute(path)
        shrink(notebook)
        seconds = time.perf_counter() - start
        target = path.with_suffix(".ipynb")
        nbformat.write(notebook, target)
        print(f"{path.stem}: {seconds:.0f} s, {target.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main([pathlib.Path(name).stem for name in sys.argv[1:]])
