"""Pictures, in one look; matplotlib is imported only when one is drawn."""

from jdl.plot.calibration import reliability_figure
from jdl.plot.curves import curves_figure
from jdl.plot.diagnose import check_figure
from jdl.plot.importance import Importance, importance_figure, importances
from jdl.plot.page import write_report
from jdl.plot.pair import pair_figure
from jdl.plot.parallel import parallel_figure
from jdl.plot.report import report_figures
from jdl.plot.rungs import rungs_figure
from jdl.plot.slices import slice_figure
from jdl.plot.style import PALETTE, STYLE, new_figure, styled
from jdl.plot.sweep import sweep_figure
from jdl.plot.timeline import timeline_figure
from jdl.plot.trials import learning_curves_figure

__all__ = [
    "PALETTE",
    "STYLE",
    "check_figure",
    "curves_figure",
    "Importance",
    "importance_figure",
    "importances",
    "learning_curves_figure",
    "new_figure",
    "pair_figure",
    "parallel_figure",
    "reliability_figure",
    "report_figures",
    "rungs_figure",
    "slice_figure",
    "styled",
    "sweep_figure",
    "timeline_figure",
    "write_report",
]
