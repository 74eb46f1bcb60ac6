"""Sweeps: many trials as lanes of one compiled program per static group."""

from jdl.engine.loop import Stopping
from jdl.engine.store import StoreError
from jdl.sweep.results import Results, Summary, TrialResult, read
from jdl.sweep.run import Interrupted, run
from jdl.sweep.search import Search, grid_search, random_search
from jdl.sweep.space import (
    Dimension,
    choice,
    from_json,
    from_toml,
    grid,
    integer,
    log_grid,
    log_uniform,
    parse_space,
    seeds,
    to_json,
    uniform,
)
from jdl.sweep.stopping import asha

__all__ = [
    # the main job
    "run",
    "read",
    "Results",
    "TrialResult",
    "Summary",
    "Interrupted",
    "StoreError",
    # spaces
    "Dimension",
    "choice",
    "uniform",
    "log_uniform",
    "integer",
    "grid",
    "log_grid",
    "seeds",
    "parse_space",
    "to_json",
    "from_json",
    "from_toml",
    # search
    "Search",
    "grid_search",
    "random_search",
    # early stopping
    "Stopping",
    "asha",
]
