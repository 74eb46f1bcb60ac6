"""Contours, surfaces, bands, histograms by depth, schedules: what is drawn is what was given."""

from __future__ import annotations

import numpy as np
import pytest

from jdl import optim
from jdl.plot import (
    PALETTE,
    bands_figure,
    contour_figure,
    depth_figure,
    schedules_figure,
    surface_figure,
)

matplotlib = pytest.importorskip("matplotlib")


def bowl(points):
    return np.asarray(points)[:, 0] ** 2 + 4 * np.asarray(points)[:, 1] ** 2


PATHS = {
    "one": np.stack([np.linspace(-1.5, 0, 9), np.linspace(1, 0, 9)], 1),
    "two": np.stack([np.linspace(-1.5, 3, 9), np.linspace(1, -0.5, 9)], 1),
}
VIEW = {"x_range": (-2.0, 2.0), "y_range": (-1.0, 1.5)}


def named(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def png(figure):
    from io import BytesIO

    file = BytesIO()
    figure.savefig(file, dpi=40)
    return len(file.getvalue())


def test_contours_hold_the_paths_the_minimum_and_levels_of_the_loss():
    figure = contour_figure(bowl, PATHS, minimum=(0.1, 0.2), labels=("a", "b"), **VIEW)
    (axes,) = figure.axes
    lines = named(axes)
    for name, path in PATHS.items():
        np.testing.assert_array_equal(lines[name].get_xydata(), path)
    assert lines["one"].get_color() == PALETTE[0] != lines["two"].get_color()
    assert lines["minimum"].get_xydata().tolist() == [[0.1, 0.2]]
    assert axes.get_xlim() == (-2, 2) and axes.get_ylim() == (-1, 1.5)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("a", "b")
    lines_of = axes.collections[1]  # on the filled ones
    levels = np.asarray(lines_of.levels)
    # From the least to the most of the grid, 4 + 9 in a corner, and closer together below.
    assert levels[0] == pytest.approx(0, abs=1e-3) and levels[-1] == pytest.approx(4 + 9)
    assert (np.diff(np.diff(levels)) > 0).all()
    # The line of a level lies where the loss has that value.
    vertices = lines_of.get_paths()[5].vertices
    np.testing.assert_allclose(bowl(vertices), levels[5], rtol=0.02)
    assert png(figure) > 1000


def test_frames_show_the_paths_so_far():
    figure = contour_figure(bowl, PATHS, frames=(2, 5, 8), **VIEW)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        f"after {n} steps" for n in (2, 5, 8)
    ]
    for axes, steps in zip(figure.axes, (2, 5, 8)):
        np.testing.assert_array_equal(named(axes)["two"].get_xydata(), PATHS["two"][: steps + 1])
        # Where a path is now is marked, unless that is outside.
        points = [line.get_xydata()[0] for line in axes.get_lines() if len(line.get_xydata()) == 1]
        inside = [p for p in (PATHS["one"][steps], PATHS["two"][steps]) if p[0] <= 2]
        np.testing.assert_array_equal(points, inside)


def test_paths_apart_have_a_panel_each_and_their_own_colours():
    figure = contour_figure(bowl, PATHS, apart=True, **VIEW)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["one", "two"]
    first, second = (named(axes) for axes in figure.axes)
    assert "two" not in first and second["two"].get_color() == PALETTE[1]


def test_contours_refuse_what_they_cannot_draw():
    with pytest.raises(ValueError, match="one of them"):
        contour_figure(bowl, PATHS, apart=True, frames=(1,), **VIEW)
    with pytest.raises(ValueError, match=r"shape \(steps \+ 1, 2\), got \(3,\) for 'x'"):
        contour_figure(bowl, {"x": np.zeros(3)}, **VIEW)
    with pytest.raises(ValueError, match="narrow the ranges"), np.errstate(all="ignore"):
        contour_figure(lambda points: np.log(points[:, 0]), {}, **VIEW)


def test_a_surface_has_the_height_of_the_loss_and_paths_on_it():
    figure = surface_figure(bowl, PATHS, labels=("a", "b", "c"), **VIEW)
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_zlabel()) == ("a", "b", "c")
    x, _, z = named(axes)["two"].get_data_3d()
    inside = PATHS["two"][:, 0] <= 2
    assert np.isnan(x[~inside]).all()
    # Lifted by 1 % of the loss's range, 13.
    np.testing.assert_allclose(z[inside], bowl(PATHS["two"])[inside] + 0.13, rtol=1e-3)
    assert axes.get_zlim()[1] >= 13 - 0.5
    assert png(figure) > 1000


def test_bands_are_medians_and_quantiles_over_seeds():
    table = np.array([[1.0, 2.0, np.nan], [3.0, 5.0, 1.0], [11.0, 4.0, 1.0]])
    figure = bands_figure(
        [1, 10, 100], {"a": table, "b": [7, 8, 9]}, x_label="x", y_label="y", x_log=True, y_log=True
    )
    (axes,) = figure.axes
    lines = named(axes)
    np.testing.assert_array_equal(lines["a"].get_ydata(), [3, 4, np.nan])  # a seed diverged
    np.testing.assert_array_equal(lines["b"].get_ydata(), [7, 8, 9])
    (band,) = axes.collections  # one run has none
    vertices = band.get_paths()[0].vertices
    for x, low, high in ((1, 1, 11), (10, 2, 5)):
        at = vertices[np.isclose(vertices[:, 0], x), 1]
        assert (at.min(), at.max()) == (low, high)
    assert axes.get_xlabel() == "x (log scale)" and axes.get_ylabel() == "y (log scale)"
    assert axes.get_xscale() == axes.get_yscale() == "log"
    inner = bands_figure(
        [1, 2, 3], {"a": table}, x_label="x", y_label="y", quantiles=(0.25, 0.75)
    ).axes[0]
    at = inner.collections[0].get_paths()[0].vertices
    assert at[np.isclose(at[:, 0], 1), 1].max() == 7  # halfway between 3 and 11


def test_what_is_long_is_wrapped_and_log_scales_have_plain_numbers():
    names = [f"a network with a long name, {i}" for i in range(4)]
    figure = bands_figure(
        [1, 2],
        {name: [0.05, 0.3] for name in names},
        x_label="x",
        y_label="a label that is too long to stand beside so low a panel",
        y_log=True,
    )
    (axes,), (legend,) = figure.axes, figure.legends
    assert axes.get_ylabel().split("\n") == [
        "a label that is too long to stand beside",
        "so low a panel",
        "(log scale)",
    ]
    assert legend._ncols == 2
    figure.draw_without_rendering()
    box, whole = legend.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1
    axis = axes.yaxis
    said = {text.get_text() for text in axis.get_ticklabels(which="both")}
    assert {"0.1", "0.2"} <= said and not any("e-" in text or "$" in text for text in said)


def test_bands_in_panels_share_axes_and_colours():
    figure = bands_figure(
        [1, 2],
        {"left": {"a": [1, 2], "b": [2, 3]}, "right": {"b": [5, 9]}},
        x_label="x",
        y_label="y",
        y_range=(0, 20),
    )
    left, right = figure.axes
    assert [axes.get_title(loc="left") for axes in (left, right)] == ["left", "right"]
    assert named(left)["b"].get_color() == named(right)["b"].get_color() == PALETTE[1]
    assert left.get_ylim() == right.get_ylim() == (0, 20)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


def test_a_curve_must_fit_its_axis():
    with pytest.raises(ValueError, match=r"3 points of x, got shape \(2,\) for 'a'"):
        bands_figure([1, 2, 3], {"a": [1, 2]}, x_label="x", y_label="y")


def test_histograms_by_depth_count_every_value():
    random = np.random.default_rng(0)
    layers = [random.normal(size=(50, 4)) * scale for scale in (1.0, 0.5, 0.01)]
    figure = depth_figure({"fading": layers, "short": layers[:2]}, limit=2.0)
    fading, short = figure.axes
    assert [text.get_text() for text in fading.texts] == [f"{v.std():.2g}" for v in layers]
    assert len(short.patches) == 2 and short.get_ylim() == fading.get_ylim()
    assert fading.get_xlim() == (-2, 2)
    for row, (patch, values) in enumerate(zip(fading.patches, layers)):
        heights, edges, base = patch.get_data()
        assert base == -row
        counts = ((heights + row) / 0.85) ** 2  # the square root is drawn, the highest 0.85
        expected = np.histogram(np.clip(values, -2, 2), edges)[0]
        np.testing.assert_allclose(counts, expected / expected.max(), atol=1e-9)
        assert expected.sum() == 200
    wide = depth_figure({"own": layers}).axes[0]
    most = min(3 * layers[0].std(), max(abs(layer).max() for layer in layers))
    assert wide.get_xlim() == pytest.approx((-most, most))
    one_sided = depth_figure({"relu": [np.array([0.0, 0.0, 3.0, 1.0])]}, row_label="unit").axes[0]
    assert one_sided.get_xlim() == (0, 3)  # the largest value, less than 3 standard deviations
    assert one_sided.get_ylabel() == "unit (right: standard deviation)"
    assert png(figure) > 1000


def test_schedules_are_drawn_at_every_step():
    figure = schedules_figure(
        {"constant": lambda step: 0.5, "cosine": optim.cosine_decay_schedule(0.2, 8)}, 9
    )
    constant, cosine = figure.axes
    np.testing.assert_array_equal(constant.get_lines()[0].get_ydata(), np.full(9, 0.5))
    np.testing.assert_allclose(
        cosine.get_lines()[0].get_ydata(), 0.1 * (1 + np.cos(np.pi * np.arange(9) / 8)), atol=1e-7
    )
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["constant", "cosine"]
    assert cosine.get_xlabel() == "step" and figure.get_supylabel() == "learning rate"
