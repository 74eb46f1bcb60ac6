"""Set-ups that are broken, each in one way, and the check that must name it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from tests.diagnose import arrays, trials
from tests.diagnose.arrays import digits, every_x, set_column, with_data
from tests.diagnose.trials import classify, hand_written, mlp, mode, normed, two_layers, with_loss

from jdl import diagnose, nn, optim
from jdl.nn import initializer


@dataclasses.dataclass
class Case:
    """A set-up, the check that must name it, and what it must say."""

    make: Any  # of the rate
    check: str
    kind: str
    rate: float = 3e-3
    dataset: Any = None
    penalty: Any = None
    also: tuple[tuple[str, str], ...] = ()  # names that are as right among all checks


def cases() -> dict[str, Case]:
    relu, tanh = nn.relu, nn.tanh
    fine = classify(mlp())
    constant, normal = initializer.constant, initializer.normal
    away = trials.negative_l2(two_layers, 1e-2)
    found = {
        "zero initialisation": Case(
            classify(mlp((16, 16), kernel=initializer.zeros)), "symmetry", "equal_units"
        ),
        "constant initialisation": Case(
            classify(mlp((16, 16), kernel=constant(0.1))), "symmetry", "equal_units"
        ),
        "tiny initialisation": Case(
            classify(mlp((16,) * 4, tanh, normal(1e-3))), "activation_statistics", "fading"
        ),
        "huge initialisation, tanh": Case(
            classify(mlp((16, 16), tanh, normal(2.0))), "activation_statistics", "saturated"
        ),
        "huge initialisation, relu": Case(
            classify(mlp((16,), relu, normal(1.0))), "loss_at_init", "confident"
        ),
        "sigmoid stack": Case(
            classify(mlp((16,) * 8, nn.sigmoid)),
            "gradient_statistics",
            "vanishing",
            also=(("activation_statistics", "fading"),),
        ),
        "rate too low": Case(fine, "learning_rate_range", "too_low", rate=1e-7),
        "rate too high": Case(
            classify(mlp(), optim.momentum), "learning_rate_range", "too_high", rate=30.0
        ),
        "a step that replaces the weights": Case(
            fine, "update_ratio", "large", rate=1.0, also=(("learning_rate_range", "too_high"),)
        ),
        "a step that rounds away": Case(
            classify(mlp(), optim.sgd),
            "update_ratio",
            "small",
            rate=1e-8,
            also=(("learning_rate_range", "too_low"),),
        ),
        "a layer that stands still": Case(
            classify(mlp(), trials.frozen_first), "update_ratio", "still", rate=0.1
        ),
        "unscaled data": Case(
            fine, "data_report", "scale", dataset=with_data(every_x(lambda x, y: 255 * (x + 1)))
        ),
        "one feature in other units": Case(
            fine,
            "data_report",
            "uneven",
            dataset=with_data(
                every_x(
                    lambda x, y: np.concatenate(
                        [x[:, :20] * 5e-3, x[:, 20:21] * 9, x[:, 21:] * 5e-3], 1
                    )
                )
            ),
        ),
        "labels shuffled": Case(
            fine, "data_report", "labels_unrelated", dataset=with_data(arrays.shuffled)
        ),
        "labels shuffled in training only": Case(
            fine, "data_report", "labels_unrelated", dataset=with_data(arrays.shuffled_in_training)
        ),
        "labels shifted by a row": Case(
            fine, "data_report", "labels_unrelated", dataset=with_data(arrays.shifted_by_a_row)
        ),
        "leakage with a little noise": Case(
            fine, "data_report", "leakage", dataset=with_data(arrays.nearly_leaking)
        ),
        "a split scaled otherwise": Case(
            fine,
            "data_report",
            "scaled_otherwise",
            dataset=with_data(arrays.scaled_otherwise(16.0)),
        ),
        "a split shifted otherwise": Case(
            fine,
            "data_report",
            "scaled_otherwise",
            dataset=with_data(arrays.scaled_otherwise(1.0, 3.0)),
        ),
        "a few noisy examples": Case(
            classify(mlp((64,))),
            "read_curve",
            "overfit",
            rate=1e-2,
            dataset=with_data(arrays.few_and_noisy),
        ),
        "leakage between splits": Case(
            fine, "data_report", "leakage", dataset=with_data(arrays.leaking)
        ),
        "a constant feature": Case(
            fine,
            "data_report",
            "constant",
            dataset=with_data(every_x(lambda x, y: set_column(x, 20, 7.0))),
        ),
        "the label among the features": Case(
            fine,
            "data_report",
            "label_in_features",
            dataset=with_data(every_x(lambda x, y: set_column(x, 20, y / 5.0 - 1))),
        ),
        "a hole in the data": Case(
            fine, "data_report", "not_finite", dataset=with_data(arrays.holed)
        ),
        "split in the order of labels": Case(
            fine, "data_report", "missing_class", dataset=with_data(arrays.in_order)
        ),
        "a rare class": Case(fine, "data_report", "imbalance", dataset=with_data(arrays.rare)),
        "softmax applied twice": Case(
            with_loss(mlp(), trials.probabilities_as_logits), "overfit_small_batch", "softmax_twice"
        ),
        "loss of the wrong scale": Case(
            with_loss(mlp(), trials.times_100), "loss_at_init", "scaled"
        ),
        "loss summed over the batch": Case(
            hand_written(two_layers, summed=True),
            "loss_at_init",
            "summed",
            also=(("evaluation_mode", "summed"),),
        ),
        "logarithm of nothing": Case(
            hand_written(trials.log_of_nothing),
            "loss_at_init",
            "not_finite",
            also=(("activation_statistics", "not_finite"),),
        ),
        "sign error in a custom gradient": Case(
            classify(mlp((16, 16), trials.upside_down)), "gradient_check", "wrong_gradient"
        ),
        "detached layer": Case(hand_written(trials.detached), "gradient_check", "detached"),
        "dead ReLU by bias": Case(
            classify(mlp((16,), relu, bias=constant(-30.0))), "activation_statistics", "dead"
        ),
        "dropout left on in evaluation": Case(
            hand_written(
                two_layers,
                evaluate=lambda params, x: trials.masked(jax.random.key(1), params, x),
                noise=trials.masked,
            ),
            "evaluation_mode",
            "noise",
        ),
        "batch norm in training mode in evaluation": Case(
            classify(mode(normed(), always_training=True)), "evaluation_mode", "batch_statistics"
        ),
        "running statistics left behind": Case(
            classify(nn.chain(lambda x: 0.005 * x, mode(normed()))),
            "evaluation_mode",
            "disagrees",
            also=(("carried_state", "stands_still"),),
        ),
        "batch norm in evaluation mode in training": Case(
            classify(mode(normed(), never_training=True)), "carried_state", "stands_still"
        ),
        "what batch norm returns left behind": Case(
            classify(mode(normed())), "carried_state", "stands_still"
        ),
        "Adam made anew in each step": Case(trials.anew("fresh"), "carried_state", "unread"),
        "Adam made anew, its old state returned": Case(
            trials.anew("old"), "carried_state", "unread"
        ),
        "a typed key used twice": Case(
            hand_written(two_layers, trials.one_key_twice), "key_reuse", "reused"
        ),
        "raw words of a key used twice": Case(
            hand_written(trials.four_layers, trials.one_old_key_twice), "key_reuse", "equal_layers"
        ),
        "the same mask in every step": Case(
            hand_written(
                two_layers, noise=lambda key, params, x: trials.masked(jax.random.key(4), params, x)
            ),
            "key_reuse",
            "constant_key",
        ),
        "one start for all seeds": Case(
            hand_written(two_layers, lambda key: trials.one_distinct_start()),
            "key_reuse",
            "same_start",
        ),
        "exploding linear net": Case(
            classify(mlp((16,) * 8, nn.identity, normal(1.5))),
            "gradient_statistics",
            "exploding",
            also=(("activation_statistics", "growing"),),
        ),
        "penalty of the wrong sign": Case(
            away,
            "regularization_raises_loss",
            "lowers",
            rate=0.1,
            penalty=(away(0.1, 0.0), away(0.1)),
        ),
        "penalty that drowns the loss": Case(
            classify(mlp(), l2=30.0),
            "regularization_raises_loss",
            "dominates",
            penalty=(fine(3e-3), classify(mlp(), l2=30.0)(3e-3)),
        ),
        "penalty that reaches nothing": Case(
            fine, "regularization_raises_loss", "no_effect", penalty=(fine(3e-3), fine(3e-3))
        ),
    }
    return {name: _filled(case) for name, case in found.items()}


def _filled(case: Case) -> Case:
    return case if case.dataset is not None else dataclasses.replace(case, dataset=digits())


def only(case: Case, key: Any) -> Any:
    """What the one check that must name the case finds."""
    x, y = case.dataset.train
    batch, probe = (x[:32], y[:32]), (x[:256], y[:256])
    trial = case.make(case.rate)
    checks = {
        "data_report": lambda: diagnose.data_report(case.dataset),
        "symmetry": lambda: diagnose.symmetry(trial, batch, key=key),
        "loss_at_init": lambda: diagnose.loss_at_init(trial, probe, key=key),
        "activation_statistics": lambda: diagnose.activation_statistics(trial, probe, key=key),
        "gradient_statistics": lambda: diagnose.gradient_statistics(trial, batch, key=key),
        "gradient_check": lambda: diagnose.gradient_check(trial, batch, key=key),
        "carried_state": lambda: diagnose.carried_state(trial, batch, key=key),
        "read_curve": lambda: diagnose.examine(case.make, case.dataset, rate=case.rate)[
            "read_curve"
        ],
        "key_reuse": lambda: diagnose.key_reuse(trial, batch, key=key),
        "evaluation_mode": lambda: diagnose.evaluation_mode(
            case.make, batch, key=key, rates=[case.rate, 3 * case.rate]
        ),
        "update_ratio": lambda: diagnose.update_ratio(trial, batch, key=key),
        "learning_rate_range": lambda: diagnose.learning_rate_range(
            case.make, (x, y), key=key, rate=case.rate, steps=60
        ),
        "overfit_small_batch": lambda: diagnose.overfit_small_batch(
            case.make, (x, y), key=key, rates=[1e-3, 1e-2, 1e-1]
        ),
        "regularization_raises_loss": lambda: diagnose.regularization_raises_loss(
            *case.penalty, batch, key=key
        ),
    }
    return checks[case.check]()
