"""Pictures, in one look; matplotlib is imported only when one is drawn."""

from jdl.plot.bands import bands_figure
from jdl.plot.calibration import reliability_figure
from jdl.plot.contour import contour_figure
from jdl.plot.curves import curves_figure
from jdl.plot.depth import depth_figure
from jdl.plot.diagnose import check_figure
from jdl.plot.importance import Importance, importance_figure, importances
from jdl.plot.page import write_report
from jdl.plot.pair import pair_figure
from jdl.plot.parallel import parallel_figure
from jdl.plot.population import population_figure
from jdl.plot.report import report_figures
from jdl.plot.roofline import roofline_figure
from jdl.plot.rungs import rungs_figure
from jdl.plot.schedules import schedules_figure
from jdl.plot.slices import slice_figure
from jdl.plot.style import PALETTE, STYLE, new_figure, styled
from jdl.plot.surface import surface_figure
from jdl.plot.sweep import sweep_figure
from jdl.plot.timeline import timeline_figure
from jdl.plot.trials import learning_curves_figure

__all__ = [
    "PALETTE",
    "STYLE",
    "bands_figure",
    "check_figure",
    "contour_figure",
    "curves_figure",
    "depth_figure",
    "Importance",
    "importance_figure",
    "importances",
    "learning_curves_figure",
    "new_figure",
    "pair_figure",
    "parallel_figure",
    "population_figure",
    "reliability_figure",
    "report_figures",
    "roofline_figure",
    "rungs_figure",
    "schedules_figure",
    "slice_figure",
    "styled",
    "surface_figure",
    "sweep_figure",
    "timeline_figure",
    "write_report",
]
