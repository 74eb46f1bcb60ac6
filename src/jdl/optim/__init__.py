"""Optimizers, transforms of gradients and schedules, as pure functions of traced numbers."""

from jdl.optim.base import Optimizer, Schedule, apply_updates, at_step, chain
from jdl.optim.elementwise.adam import AdamState, adam, adamw, nadam, nadamw
from jdl.optim.elementwise.adam_max import AmsgradState, adamax, adamaxw, amsgrad
from jdl.optim.elementwise.adam_variants import adabelief, radam, yogi
from jdl.optim.elementwise.adan import AdanState, adan
from jdl.optim.elementwise.adaptive import (
    AdadeltaState,
    AdagradState,
    RmspropState,
    adadelta,
    adagrad,
    rmsprop,
)
from jdl.optim.elementwise.ademamix import AdemamixState, ademamix
from jdl.optim.elementwise.adopt import adopt
from jdl.optim.elementwise.descent import DescentState, momentum, nesterov, sgd
from jdl.optim.elementwise.langevin import NoisyState, noisy_sgd, sgld
from jdl.optim.elementwise.sign import (
    RpropState,
    SignMomentumState,
    SignSgdState,
    lion,
    rprop,
    sign_sgd,
    signum,
)
from jdl.optim.elementwise.sophia import (
    HutchinsonState,
    SophiaState,
    hutchinson_estimator_diag_hessian,
    sophia,
)
from jdl.optim.free.distance import DistanceState, dog, dowg
from jdl.optim.free.parameter_free import DAdaptState, ProdigyState, dadapt_adamw, prodigy
from jdl.optim.free.polyak import AsgdState, PolyakState, asgd, polyak_sgd
from jdl.optim.free.schedule_free import (
    ScheduleFreeState,
    schedule_free,
    schedule_free_adamw,
    schedule_free_eval_params,
    schedule_free_sgd,
)
from jdl.optim.hypergradient import Hypergradient, hypergradient, unroll
from jdl.optim.matrix.factored import AdafactorState, adafactor
from jdl.optim.matrix.layerwise import LambState, LarsState, lamb, lars
from jdl.optim.matrix.matrix_function import inverse_root, orthogonalize
from jdl.optim.matrix.muon import MuonDimensionNumbers, MuonState, muon
from jdl.optim.matrix.shampoo import ShampooState, shampoo
from jdl.optim.matrix.soap import SoapState, soap
from jdl.optim.names import by_name
from jdl.optim.schedules.cycle import (
    cosine_onecycle_schedule,
    cosine_restarts,
    cyclic_schedule,
    linear_onecycle_schedule,
    sgdr_schedule,
)
from jdl.optim.schedules.decay import (
    constant_schedule,
    cosine_decay_schedule,
    exponential_decay,
    inverse_sqrt_schedule,
    inverse_time_decay,
    linear_schedule,
    natural_exponential_decay,
    polynomial_schedule,
    step_decay,
    sutskever_momentum,
)
from jdl.optim.schedules.join import (
    join_schedules,
    piecewise_constant_schedule,
    piecewise_interpolate_schedule,
    warmup,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
    wsd_schedule,
)
from jdl.optim.schedules.plateau import Plateau, PlateauState, plateau
from jdl.optim.solvers.direction import Direction, DirectionState
from jdl.optim.solvers.gauss_newton import gauss_newton
from jdl.optim.solvers.least_squares import least_squares
from jdl.optim.solvers.line_search import (
    LineSearch,
    Search,
    backtracking_linesearch,
    search_along,
    zoom_linesearch,
)
from jdl.optim.solvers.marquardt import MarquardtState, levenberg_marquardt
from jdl.optim.solvers.minimize import minimize
from jdl.optim.solvers.newton import newton, newton_cg, newton_cg_direction, newton_direction
from jdl.optim.solvers.quasi_newton import bfgs, bfgs_direction, lbfgs, lbfgs_direction
from jdl.optim.solvers.rate_descent import SearchState, line_search_descent, scale_by_linesearch
from jdl.optim.solvers.solution import (
    CONVERGED,
    LINE_SEARCH_FAILED,
    MAX_ITERATIONS,
    NOT_FINITE,
    STALLED,
    STATUS_MESSAGES,
    Result,
    status_message,
)
from jdl.optim.transforms.average import averaged_params, parameter_ema, polyak_average, swa
from jdl.optim.transforms.clip import (
    adaptive_grad_clip,
    clip,
    clip_by_block_rms,
    clip_by_global_norm,
)
from jdl.optim.transforms.finite import apply_if_finite, zero_nans
from jdl.optim.transforms.gradient import (
    add_decayed_weights,
    add_noise,
    centralize,
    ema,
    identity,
    normalize_by_update_norm,
    scale,
    set_to_zero,
)
from jdl.optim.transforms.group import by_path, freeze, masked, partition
from jdl.optim.transforms.wrapper import accumulate, lookahead, sam

__all__ = [
    # What an optimizer is.
    "Optimizer",
    "Schedule",
    "apply_updates",
    "at_step",
    "by_name",
    "chain",
    # Descent.
    "DescentState",
    "momentum",
    "nesterov",
    "sgd",
    # Adaptive rates.
    "AdadeltaState",
    "AdagradState",
    "RmspropState",
    "adadelta",
    "adagrad",
    "rmsprop",
    # Adam and its relatives.
    "AdamState",
    "AdanState",
    "AmsgradState",
    "adabelief",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "adan",
    "amsgrad",
    "nadam",
    "nadamw",
    "radam",
    "yogi",
    # Signs.
    "RpropState",
    "SignMomentumState",
    "SignSgdState",
    "lion",
    "rprop",
    "sign_sgd",
    "signum",
    # Adam rearranged.
    "AdemamixState",
    "ademamix",
    "adopt",
    # Scaled to each layer; a factored second moment.
    "AdafactorState",
    "LambState",
    "LarsState",
    "adafactor",
    "lamb",
    "lars",
    # Matrices.
    "MuonDimensionNumbers",
    "MuonState",
    "ShampooState",
    "SoapState",
    "inverse_root",
    "muon",
    "orthogonalize",
    "shampoo",
    "soap",
    # Without a schedule, without a rate.
    "DAdaptState",
    "DistanceState",
    "ProdigyState",
    "ScheduleFreeState",
    "dadapt_adamw",
    "dog",
    "dowg",
    "prodigy",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_eval_params",
    "schedule_free_sgd",
    # Curvature, the value of the loss, averages, noise.
    "AsgdState",
    "HutchinsonState",
    "NoisyState",
    "PolyakState",
    "SophiaState",
    "asgd",
    "hutchinson_estimator_diag_hessian",
    "noisy_sgd",
    "polyak_sgd",
    "sgld",
    "sophia",
    # Transforms.
    "adaptive_grad_clip",
    "add_decayed_weights",
    "add_noise",
    "centralize",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "ema",
    "identity",
    "normalize_by_update_norm",
    "scale",
    "set_to_zero",
    "zero_nans",
    # Wrappers.
    "accumulate",
    "apply_if_finite",
    "by_path",
    "freeze",
    "lookahead",
    "masked",
    "partition",
    "sam",
    # Averages of the parameters.
    "averaged_params",
    "parameter_ema",
    "polyak_average",
    "swa",
    # Schedules.
    "Plateau",
    "PlateauState",
    "constant_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "cosine_restarts",
    "cyclic_schedule",
    "exponential_decay",
    "inverse_sqrt_schedule",
    "inverse_time_decay",
    "join_schedules",
    "linear_onecycle_schedule",
    "linear_schedule",
    "natural_exponential_decay",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "plateau",
    "polynomial_schedule",
    "sgdr_schedule",
    "step_decay",
    "sutskever_momentum",
    "warmup",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
    "wsd_schedule",
    # Second order and line search, and the solvers made of them.
    "CONVERGED",
    "LINE_SEARCH_FAILED",
    "MAX_ITERATIONS",
    "NOT_FINITE",
    "STALLED",
    "STATUS_MESSAGES",
    "Direction",
    "DirectionState",
    "LineSearch",
    "MarquardtState",
    "Result",
    "Search",
    "SearchState",
    "backtracking_linesearch",
    "bfgs",
    "bfgs_direction",
    "gauss_newton",
    "lbfgs",
    "lbfgs_direction",
    "least_squares",
    "levenberg_marquardt",
    "line_search_descent",
    "minimize",
    "newton",
    "newton_cg",
    "newton_cg_direction",
    "newton_direction",
    "scale_by_linesearch",
    "search_along",
    "status_message",
    "zoom_linesearch",
    # Derivatives of training.
    "Hypergradient",
    "hypergradient",
    "unroll",
]
