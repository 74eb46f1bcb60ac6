"""The one look of every picture: sizes, greys, and colours that colour-blind readers tell apart."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

# Okabe and Ito (2008), Color Universal Design, without its yellow, which is faint on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")

INK = "#333333"
FAINT = "#8a8a8a"

# How a trial ended, in every picture: blue, orange and black stay apart for every reader.
DONE, STOPPED, DIVERGED = "#0072B2", "#E69F00", "#000000"
# Bad to good; dark to light for readers of any colour vision (Nunez, Anderton and Renslow, 2018).
SHADES = "cividis"

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.facecolor": "white",
    "font.size": 9.5,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "savefig.facecolor": "white",
    "text.color": INK,
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draws what is drawn inside in the look of `STYLE`, and leaves matplotlib as it was.

    Raises:
      ModuleNotFoundError: matplotlib is not installed; the message says how to get it.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Pictures need matplotlib: pip install 'jdl[plot]'.", name=error.name
        ) from error
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        yield


def new_figure(width: float = 8.0, height: float = 4.8) -> Any:
    """An empty figure of that size in inches, which no window and no global list holds."""
    return _figure_class()(figsize=(width, height), layout="constrained")


@functools.cache
def _figure_class() -> Any:
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter

    class Literal(Figure):
        """A figure whose texts are drawn as they stand: a "$" in a name begins no formula."""

        def draw(self, renderer: Any) -> None:
            formulas = set()  # the powers of ten of a logarithmic axis are
            for axes in self.axes:
                for axis in (axes.xaxis, axes.yaxis):
                    if isinstance(axis.get_major_formatter(), LogFormatter):
                        formulas |= {id(text) for text in axis.findobj(Text)} - {id(axis.label)}
            for text in self.findobj(Text):
                text.set_parse_math(id(text) in formulas)
            super().draw(renderer)

    return Literal


def line_styles(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A colour, a marker and a dash for each label, no two alike among the first 21.

    >>> line_styles(["sgd", "adam"])["adam"]["color"]
    '#D55E00'
    """
    looks = itertools.cycle(
        {"color": color, "marker": marker, "linestyle": dash}
        for dash in _DASHES
        for color, marker in zip(PALETTE, _MARKERS)
    )
    return dict(zip(labels, looks))
