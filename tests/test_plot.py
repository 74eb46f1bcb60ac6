"""The pictures: what is drawn is what the results say, computed here by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from jdl import sweep
from jdl.plot import PALETTE, curves_figure, sweep_figure
from jdl.plot.style import line_styles
from jdl.sweep.points import group_label, is_log, points_by_group

matplotlib = pytest.importorskip("matplotlib")

# Accuracies of two seeds by optimizer and rate; None diverged, "x" was stopped early at 0.3.
ACCURACIES = {
    "sgd": {1e-3: (0.2, 0.3), 1e-2: (0.6, 0.8), 1e-1: (0.9, None), 1.0: (None, None)},
    "adam": {1e-3: (0.97, 0.93), 1e-2: (0.5, 0.5), 1e-1: (0.1, "x"), 1.0: ("x", "x")},
}


def make_results(accuracies=ACCURACIES, extra=None, **changed):
    """Results with those accuracies, as a store would give them."""
    space = {
        "optimizer": sweep.choice(*accuracies),
        "lr": sweep.log_grid(1e-3, 1.0, 4),
        "seed": sweep.seeds(2),
        **(extra or {}),
    }
    trials = []
    for optimizer, by_rate in accuracies.items():
        for rate, values in by_rate.items():
            for seed, value in enumerate(values):
                status = {None: "diverged", "x": "stopped", "?": "pending"}.get(value, "done")
                shown = {None: np.nan, "x": 0.3, "?": np.nan}.get(value, value)
                config = {"optimizer": optimizer, "lr": rate, "seed": seed}
                config |= {name: d.points[len(trials) % 2] for name, d in (extra or {}).items()}
                metrics = {"valid_accuracy": shown, "valid_loss": 1 - shown}
                trials.append(sweep.TrialResult(len(trials), config, status, 10, metrics))
    specification = {
        "space": sweep.to_json(space),
        "metric": "valid_accuracy",
        "goal": "max",
        "steps": 10,
        "report_every": 10,
        **changed,
    }
    return sweep.Results(specification, trials, {}, {})


def line_of(axes, label):
    (line,) = [line for line in axes.get_lines() if line.get_label() == label]
    return line


def test_points_are_means_and_errors_over_seeds():
    groups = points_by_group(make_results(), "lr", "valid_accuracy")
    assert list(groups) == ["sgd", "adam"]  # the space's order, not the ranking
    sgd = {p.x: p for p in groups["sgd"]}
    np.testing.assert_allclose([sgd[1e-3].mean, sgd[1e-2].mean, sgd[1e-1].mean], [0.25, 0.7, 0.9])
    # Two values a, b: standard deviation |a - b| / sqrt 2, standard error |a - b| / 2.
    np.testing.assert_allclose([sgd[1e-3].stderr, sgd[1e-2].stderr], [0.05, 0.1])
    assert np.isnan(sgd[1e-1].stderr) and np.isnan(sgd[1.0].mean)
    assert [sgd[x].diverged for x in (1e-3, 1e-2, 1e-1, 1.0)] == [0, 0, 1, 2]
    adam = {p.x: p for p in groups["adam"]}
    assert adam[1.0].early == pytest.approx(0.3) and np.isnan(adam[1e-3].early)
    assert adam[1e-3].rank == 0 and all(p.best for p in groups["adam"] if p.x < 1)


def test_the_figure_shows_curves_bands_chance_divergence_and_the_best():
    figure = sweep_figure(make_results(), "lr", "valid_accuracy", chance=0.125)
    axes, strip = figure.axes
    assert axes.get_xscale() == "log" and axes.get_yscale() == "function"
    assert axes.get_ylabel() == "final validation accuracy (logit scale)"
    assert strip.get_xlabel() == "learning rate (log scale)"
    assert "16 trials, 3 diverged, 3 stopped" in axes.get_title(loc="left")
    sgd, adam = line_of(axes, "sgd"), line_of(axes, "adam")
    np.testing.assert_allclose(sgd.get_xdata(), [1e-3, 1e-2, 1e-1])
    np.testing.assert_allclose(sgd.get_ydata(), [0.25, 0.7, 0.9])
    np.testing.assert_allclose(adam.get_ydata(), [0.95, 0.5, 0.1])
    assert sgd.get_color() != adam.get_color() and sgd.get_marker() != adam.get_marker()
    band = axes.collections[0].get_paths()[0].vertices  # of sgd: 0.25 +- 0.05 at 1e-3
    at = np.isclose(band[:, 0], 1e-3)
    np.testing.assert_allclose([band[at, 1].min(), band[at, 1].max()], [0.2, 0.3])
    (chance,) = [t for t in axes.texts if t.get_text() == "chance"]
    assert chance.get_position()[1] == 0.125
    assert any(t.get_text() == "best: 0.950, adam at 0.001" for t in axes.texts)
    crosses = strip.collections[0].get_offsets()
    np.testing.assert_allclose(crosses[:, 0], [1e-1, 1.0])
    assert [t.get_text() for t in strip.get_yticklabels()] == ["sgd"]
    # Two seeds of two diverged at 1.0, one at 0.1: the larger cross.
    assert np.diff(strip.collections[0].get_sizes()) > 0
    # All that was tried is on the axis: also the rate that brought nothing.
    low, high = axes.get_xlim()
    assert low < 1e-3 and high > 1.0


def test_a_loss_is_better_when_it_is_lower():
    figure = sweep_figure(make_results(), "lr", "valid_loss")
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert "best: 0.050, adam at 0.001" in texts


def test_other_numbers_make_a_profile_or_dots():
    grid = make_results(extra={"l2": sweep.choice(0.0, 0.5)})  # one seed has 0, the other 0.5
    axes = sweep_figure(grid, "lr", "valid_accuracy").axes[0]
    np.testing.assert_allclose(line_of(axes, "sgd").get_ydata(), [0.3, 0.8, 0.9])  # the better
    assert line_of(axes, "sgd").get_linestyle() == "-"
    rates = (0.01, 0.02, 0.05, 0.1)
    drawn = make_results({name: {r: (0.5 + r,) for r in rates} for name in ("sgd", "adam")})
    drawn.specification["space"] |= {"l2": {"uniform": [0.0, 1.0]}}
    for i, trial in enumerate(drawn.trials):
        trial.config["l2"] = i / 7
    dots = line_of(sweep_figure(drawn, "lr", "valid_accuracy").axes[0], "sgd")
    assert dots.get_linestyle() == "None"
    np.testing.assert_allclose(dots.get_ydata(), [0.51, 0.52, 0.55, 0.6])


def test_a_static_hyperparameter_is_an_axis_of_names():
    axes, strip = sweep_figure(make_results(), "optimizer", "valid_accuracy").axes
    assert [t.get_text() for t in strip.get_xticklabels()] == ["sgd", "adam"]
    # Nothing joins names: the best rate of each is a marker, its other rates are faint ones. That
    # of sgd at 0.9 comes after 0.7, since it diverged with its other seed.
    drawn = {tuple(line.get_ydata()): line for line in axes.get_lines()}
    assert drawn[0.7, 0.95].get_linestyle() == "None"
    assert sorted(max(drawn, key=len)) == pytest.approx([0.1, 0.25, 0.5, 0.9])


def test_a_sweep_without_a_finished_trial_is_drawn():
    nothing = make_results({"sgd": {0.1: ("?", "?"), 0.2: ("?", "?")}})
    axes = sweep_figure(nothing, "lr", "valid_accuracy", chance=0.1).axes[0]
    assert [t.get_text() for t in axes.texts if "no trial" in t.get_text()]
    assert axes.get_title(loc="left") == "4 trials, 4 to come"  # no mean, so no seeds


def test_a_title_says_of_how_many_seeds_a_mean_is():
    both = make_results({"sgd": {0.1: (0.5, 0.6), 0.2: (0.7, 0.8)}})
    title = sweep_figure(both, "lr", "valid_accuracy").axes[0].get_title(loc="left")
    assert title == "4 trials; mean ± standard error over 2 seeds"
    one = make_results({"sgd": {0.1: (0.5, 0.6), 0.2: (0.7, "?")}})
    title = sweep_figure(one, "lr", "valid_accuracy").axes[0].get_title(loc="left")
    assert title == "4 trials, 1 to come; mean ± standard error over n = 1 to 2 seeds"


def test_close_accuracies_get_a_linear_axis_with_ticks():
    close = make_results({"sgd": {0.1: (0.61, 0.62), 0.2: (0.6, 0.63)}})
    axes = sweep_figure(close, "lr", "valid_accuracy", chance=0.1).axes[0]
    assert axes.get_yscale() == "linear"
    assert not [t for t in axes.texts if t.get_text() == "chance"]  # far below


@pytest.mark.parametrize(
    ("name", "metric", "message"),
    [
        ("rate", "valid_accuracy", r"`name` must be one of optimizer, lr, seed, got 'rate'"),
        ("lr", "speed", r"`metric` must be one of valid_accuracy, valid_loss, got 'speed'"),
    ],
)
def test_unknown_names(name, metric, message):
    with pytest.raises(ValueError, match=message):
        sweep_figure(make_results(), name, metric)


def test_results_plot_writes_a_png_and_leaves_matplotlib_as_it_was(tmp_path):
    before = dict(matplotlib.rcParams)
    make_results().plot("lr", path=str(tmp_path / "lr.png"))
    assert (tmp_path / "lr.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert dict(matplotlib.rcParams) == before


def test_curves_have_a_panel_for_each_kind():
    curves = {"train_loss": [1.0, 0.5, 0.1], "valid_loss": [1.2, 0.6, 0.4]}
    curves |= {"valid_accuracy": [0.3, 0.6, np.nan]}
    accuracy, loss = sorted(
        curves_figure([10, 20, 30], curves, best_step=20, per_epoch=10).axes,
        key=lambda axes: axes.get_ylabel(),
    )
    assert (accuracy.get_ylabel(), loss.get_ylabel()) == ("accuracy", "loss")
    np.testing.assert_allclose(line_of(loss, "training loss").get_ydata(), [1.0, 0.5, 0.1])
    np.testing.assert_allclose(line_of(loss, "validation loss").get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(line_of(loss, "kept").get_xdata(), [2, 2])
    assert loss.get_yscale() == "log" and accuracy.get_yscale() == "linear"


def test_is_log():
    assert is_log({"log_uniform": [1, 2]}, [1.1, 1.9])
    assert is_log({"choice": [0.001, 1.0]}, [0.001, 1.0])
    assert not is_log({"choice": [0.1, 1.0]}, [0.1, 1.0])
    assert not is_log({"uniform": [0.001, 1.0]}, [0.001, 1.0])
    assert not is_log({"log_grid": [1, 2, 3]}, [0.0, 1.0])
    assert not is_log({"choice": ["a", "b"]}, ["a", "b"])


def test_group_labels_name_what_does_not_name_itself():
    assert group_label({"hidden": "64x32", "batch_norm": True, "optimizer": "adam"}) == (
        "hidden=64x32 batch_norm=True adam"
    )


def test_looks_differ_and_colours_differ_for_a_colour_blind_reader():
    looks = line_styles([str(i) for i in range(21)])
    assert len({tuple(map(str, look.values())) for look in looks.values()}) == 21
    # Dichromacy in linear RGB, after Vienot, Brettel and Mollon (1999): red-green, two kinds.
    from matplotlib.colors import to_rgb

    linear = np.array([np.power(to_rgb(color), 2.2) for color in PALETTE])
    for share, blue in ((0.11238, 0.00401), (0.29275, -0.02234)):
        yellow = share * linear[:, 0] + (1 - share) * linear[:, 1]
        seen = np.stack([yellow, blue * (linear[:, 0] - linear[:, 1]) + linear[:, 2]], axis=1)
        seen = np.power(np.clip(seen, 0, 1), 1 / 2.2)
        distance = np.abs(seen[:, None] - seen[None]).max(-1)
        assert distance[~np.eye(len(PALETTE), dtype=bool)].min() > 0.1


def test_importing_the_pictures_imports_no_matplotlib():
    code = "import sys, jdl.plot; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
