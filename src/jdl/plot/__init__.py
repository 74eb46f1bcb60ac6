"""Pictures, in one look; matplotlib is imported only when one is drawn."""

from jdl.plot.calibration import reliability_figure
from jdl.plot.curves import curves_figure
from jdl.plot.style import PALETTE, STYLE, new_figure, styled
from jdl.plot.sweep import sweep_figure

__all__ = [
    "PALETTE",
    "STYLE",
    "curves_figure",
    "new_figure",
    "reliability_figure",
    "styled",
    "sweep_figure",
]
