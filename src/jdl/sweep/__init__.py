"""Sweeps: many trials as lanes of one compiled program per static group."""

from jdl.engine.database import StoreError
from jdl.engine.interrupt import Interrupted
from jdl.engine.rules import Evolution, Exchange, Rule, Stopping, Verdicts
from jdl.sweep.coarse_to_fine import CoarseToFine, Stage, coarse_to_fine, narrowed
from jdl.sweep.cross_validation import cross_validate
from jdl.sweep.dimension import (
    Dimension,
    choice,
    folds,
    grid,
    integer,
    log_grid,
    log_uniform,
    seeds,
    uniform,
    when,
)
from jdl.sweep.halving import bracket_sizes, hyperband, successive_halving
from jdl.sweep.optuna import export_study, optuna_search
from jdl.sweep.parts import merge
from jdl.sweep.population import Population, pbt
from jdl.sweep.records import Summary, TrialResult
from jdl.sweep.results import Results, read
from jdl.sweep.run import run
from jdl.sweep.search import Search, grid_search, random_search, sobol_search
from jdl.sweep.self_tuning import self_tuning
from jdl.sweep.space import from_json, from_toml, parse_space, to_json
from jdl.sweep.stopping import asha, combine, median_stopping, patience
from jdl.sweep.tensorboard import export_hparams

__all__ = [
    # the main job
    "run",
    "read",
    "merge",
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
    "folds",
    "when",
    "parse_space",
    "to_json",
    "from_json",
    "from_toml",
    # search
    "Search",
    "grid_search",
    "random_search",
    "sobol_search",
    "optuna_search",
    "coarse_to_fine",
    "CoarseToFine",
    "Stage",
    "narrowed",
    "cross_validate",
    "self_tuning",
    "export_study",
    "export_hparams",
    # early stopping
    "asha",
    "successive_halving",
    "hyperband",
    "bracket_sizes",
    "median_stopping",
    "patience",
    "combine",
    "Stopping",
    "Rule",
    "Verdicts",
    # populations
    "pbt",
    "Population",
    "Evolution",
    "Exchange",
]
