"""The pictures and the page of a report: what they draw, against the results they are made of."""

from __future__ import annotations

import html.parser
import io
import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats
from tests.made_up import EVERY, REPORTS, made_up

from jdl import plot, sweep
from jdl.engine.events import Exchanged
from jdl.plot import sweep_figure
from jdl.plot.columns import column, goodness, varying_names
from jdl.plot.forest import grow_forest, main_effects, ranks
from jdl.plot.rungs import rungs_of
from jdl.plot.scale import limit
from jdl.plot.timeline import bars_by_program
from jdl.sweep.points import points_by_group
from jdl.sweep.population import used

matplotlib = pytest.importorskip("matplotlib")

FIGURES = {
    "curves": plot.learning_curves_figure,
    "slices": plot.slice_figure,
    "parallel": plot.parallel_figure,
    "importance": plot.importance_figure,
    "pair": plot.pair_figure,
    "rungs": plot.rungs_figure,
    "lanes": plot.timeline_figure,
    "population": plot.population_figure,
}
NAMES = {"optimizer": sweep.choice("sgd", "adam"), "depth": sweep.choice(1, 2, static=True)}


@pytest.fixture(scope="module")
def halved():
    return made_up(120)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def positions(line):
    return np.column_stack([line.get_xdata(), line.get_ydata()])


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_of_every_kind_of_sweep(name):
    """One trial, none that lived, names only, nothing reported yet, a loss: each is drawn."""
    cases = {
        "one": made_up(1, diverged_above=9.0),
        "dead": made_up(9, diverged_above=0.0, stopping=False),
        "names": made_up(40, space={**NAMES, "lr": 0.02, "dropout": 0.1}),
        "loss": made_up(40, metric="valid_loss", goal="min"),
    }
    waiting = made_up(3)
    empty = [
        t._replace(status="pending", steps=0, metrics=dict.fromkeys(t.metrics, math.nan))
        for t in waiting.trials
    ]
    nothing = np.full((3, REPORTS), np.nan)
    curves = {"valid_accuracy": nothing, "valid_loss": nothing}
    cases["waiting"] = sweep.Results(waiting.specification, empty, curves, {})
    for results in cases.values():
        figure = FIGURES[name](results)
        figure.draw_without_rendering()


def test_learning_curves_end_where_trials_ended(halved):
    axes = plot.learning_curves_figure(halved).axes[0]
    assert len(axes.collections) == 3
    for status in ("done", "stopped", "diverged"):
        rows = [t.trial for t in halved.trials if t.status == status]
        (lines,) = [c for c in axes.collections if len(c.get_segments()) == len(rows)]
        for row, segment in zip(rows, lines.get_segments()):
            curve = halved.curves()[row]
            np.testing.assert_allclose(segment[:, 1], curve[np.isfinite(curve)])
            np.testing.assert_allclose(segment[:, 0], EVERY * np.arange(1, len(segment) + 1))
    (stopped,) = [
        line for line in axes.get_lines() if line.get_marker() == "v" and len(line.get_xdata())
    ]
    ends = sorted(
        (t.steps, t.metrics["valid_accuracy"]) for t in halved.trials if t.status == "stopped"
    )
    np.testing.assert_allclose(sorted(map(tuple, positions(stopped))), ends)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert f"stopped ({halved.count('stopped')})" in labels and "the best 5" in labels
    strong = [line for line in axes.get_lines() if len(line.get_xdata()) == REPORTS]
    best = sorted(t.metrics["valid_accuracy"] for t in halved.trials if t.status == "done")[-5:]
    np.testing.assert_allclose(sorted(line.get_ydata()[-1] for line in strong), best)


def test_parallel_coordinates_pass_through_every_value(halved):
    axes = plot.parallel_figure(halved).axes[0]
    dotted, lines = axes.collections
    values = np.array([t.metrics["valid_accuracy"] for t in halved.trials])
    alive = [t.trial for t in halved.trials if t.status != "diverged"]
    assert len(lines.get_segments()) == len(alive)
    assert len(dotted.get_segments()) == halved.count("diverged")
    order = sorted(alive, key=lambda i: values[i])  # the best lies on top
    place = varying_names(halved).index("lr")
    rates = np.array([t.config["lr"] for t in halved.trials])
    expected = np.log(rates / rates.min()) / np.log(rates.max() / rates.min())
    drawn = np.array([segment[place, 1] for segment in lines.get_segments()])
    np.testing.assert_allclose(drawn, expected[order], atol=1e-9)
    colours = lines.get_array()
    assert colours[0] == 0 and colours[-1] == 1 and np.all(np.diff(colours) >= 0)
    # What does not exist passes below its axis.
    place = varying_names(halved).index("mu")
    without = [s[place, 1] < 0 for s in lines.get_segments()]
    assert without == ["mu" not in halved.trials[i].config for i in order]
    assert {"none", "diverged"} <= set(texts(axes))


def test_slices_are_the_trials(halved):
    figure = plot.slice_figure(halved)
    names = varying_names(halved)
    assert len(figure.axes) == len(names)
    assert "seed" not in names and "useless" in names
    axes = figure.axes[names.index("dropout")]
    one = column(halved, "dropout")
    done = [t.trial for t in halved.trials if t.status == "done"]
    (dots,) = [line for line in axes.get_lines() if line.get_marker() == "o"]
    np.testing.assert_allclose(dots.get_xdata(), one.at[done])
    expected = [halved.trials[i].metrics["valid_accuracy"] for i in done]
    np.testing.assert_allclose(dots.get_ydata(), expected)
    (crosses,) = [line for line in axes.get_lines() if line.get_marker() == "x"]
    assert len(crosses.get_xdata()) == halved.count("diverged")
    assert figure.get_supylabel() == "final validation accuracy (logit scale)"


def test_columns_by_hand():
    space = {
        "lr": sweep.log_grid(1e-3, 1e-1, 3),
        "dropout": sweep.choice(0.0, 0.5),
        "opt": sweep.choice("b", "a"),
    }
    trials = [
        sweep.TrialResult(i, config, "done", 10, {"valid_accuracy": 0.5})
        for i, config in enumerate(sweep.grid_search(space).ask(12))
    ]
    specification = {"space": sweep.to_json(space), "metric": "valid_accuracy", "goal": "max"}
    results = sweep.Results(specification | {"steps": 10, "report_every": 10}, trials, {}, {})
    lr = column(results, "lr")
    np.testing.assert_allclose(lr.at, np.repeat([0, 0.5, 1], 4), atol=1e-12)
    assert lr.log and [text for _, text in lr.ticks] == ["0.001", "0.01", "0.1"]
    assert lr.value(0.5) == pytest.approx(0.01)
    opt = column(results, "opt")
    assert opt.names and opt.ticks == [(0.0, "b"), (1.0, "a")]
    assert column(results, "dropout").names
    # All are equal: none beats another.
    np.testing.assert_allclose(goodness(results, "valid_accuracy"), 0.5)


def test_ranks_are_those_of_scipy():
    values = np.array([0.3, 0.1, 0.3, 0.9, 0.5])
    np.testing.assert_allclose(ranks(values) * 4 + 1, stats.rankdata(values))
    assert ranks([math.nan, 1.0]).tolist() == [0.0, 1.0]


def test_the_far_end_of_bad_values_is_cut():
    losses = np.array([0.1, 0.2, 0.3, 0.4, 0.5] * 8 + [1e6])
    assert limit(losses, losses, maximise=False).max() == 0.5
    # Good outliers stay.
    assert limit(1 - losses, 1 - losses, maximise=True).max() == pytest.approx(0.9)


@pytest.mark.parametrize("metric", ["valid_loss", "valid_accuracy"])
def test_a_picture_says_how_much_lies_beyond_its_axis(halved, metric):
    sign = 1 if metric == "valid_loss" else -1
    curves = sign * np.linspace(1.0, 2.0, 40)[:, None] * np.linspace(2.0, 1.0, REPORTS)
    curves[:3, 0] = curves[4] = sign * 1e5
    trials = [
        trial._replace(status="done", metrics={metric: float(curve[-1])})
        for trial, curve in zip(halved.trials, curves)
    ]
    specification = {**halved.specification, "metric": metric}
    specification["goal"] = "min" if metric == "valid_loss" else "max"
    results = sweep.Results(specification, trials, {metric: curves}, {})
    assert "4 curves beyond the axis" in texts(plot.learning_curves_figure(results).axes[0])
    assert "; 1 trial beyond the axis" in plot.slice_figure(results).get_suptitle()
    results = sweep.Results(specification, trials[5:], {metric: curves[5:]}, {})
    assert texts(plot.learning_curves_figure(results).axes[0]) == []
    assert "beyond" not in plot.slice_figure(results).get_suptitle()


def test_importance_finds_the_shares_of_a_known_function():
    """y = 3 a + 1.5 b + 0 c of independent uniforms: the shares are 9 and 2.25 of 11.25."""
    random = np.random.default_rng(0)
    x = random.random((1000, 3))
    y = 3 * x[:, 0] + 1.5 * x[:, 1]
    effects = main_effects(grow_forest(x, y), x).mean(axis=0)
    np.testing.assert_allclose(effects, [0.8, 0.2, 0.0], atol=0.05)
    # An interaction alone: neither column explains anything by itself.
    y = np.sign(x[:, 0] - 0.5) * np.sign(x[:, 1] - 0.5)
    assert main_effects(grow_forest(x, y), x).mean(axis=0).max() < 0.15


def test_importance_ranks_what_matters_and_names_the_noise():
    found = plot.importances(made_up(300, stopping=False))
    assert found[0].name == "lr" and found[0].share > 0.7
    place = [i.name for i in found]
    assert set(place) == {"lr", "optimizer", "mu", "dropout", "width", "useless", ""}
    assert place.index("dropout") < place.index("useless")
    assert plot.importances(made_up(5)) == []
    figure = plot.importance_figure(made_up(5))
    assert "needs 12 trials that ended" in texts(figure.axes[0])[0]


def test_a_pair_is_drawn_over_its_map(halved):
    figure = plot.pair_figure(halved, "dropout", "lr")
    axes = figure.axes[0]
    assert axes.get_xlabel() == "dropout" and axes.get_ylabel() == "learning rate (log scale)"
    alive = [t for t in halved.trials if t.status != "diverged"]
    (dots,) = [c for c in axes.collections if len(c.get_offsets()) == len(alive)]
    best = max(alive, key=lambda t: t.metrics["valid_accuracy"])
    one, two = column(halved, "dropout"), column(halved, "lr")
    np.testing.assert_allclose(dots.get_offsets()[-1], [one.at[best.trial], two.at[best.trial]])
    assert f"best: {best.metrics['valid_accuracy']:.4g}" in texts(axes)
    with pytest.raises(ValueError, match=r"`x` must be one of optimizer, lr, .*, got 'rate'"):
        plot.pair_figure(halved, "rate")
    # Without names given, two numbers that every trial has.
    assert "learning rate" in plot.pair_figure(halved).axes[0].get_xlabel()


def test_rungs_count_who_went_on(halved):
    rungs = rungs_of(halved, "valid_accuracy")
    assert [rung.step for rung in rungs] == [EVERY, 4 * EVERY]
    lengths = np.array([t.steps // EVERY for t in halved.trials])
    assert len(rungs[0].trials) == 120 and rungs[0].stopped.sum() == (lengths == 1).sum()
    here = lengths >= 4
    assert len(rungs[1].trials) == here.sum()
    assert rungs[1].stopped.sum() == (lengths == 4).sum()
    figure = plot.rungs_figure(halved)
    assert f"{120 - (lengths == 1).sum()} of 120\nwent on" in texts(figure.axes[1])
    share = 100 * lengths.sum() / (120 * REPORTS)
    assert texts(figure.axes[0])[0].startswith(f"{share:.0f} % of the steps")


def test_the_timeline_lays_every_trial_in_its_lane(halved):
    programs = bars_by_program(halved)
    bars = [bar for bars in programs.values() for bar in bars]
    assert sorted(bar.trial for bar in bars) == list(range(120))
    assert all(bar.steps == halved.trials[bar.trial].steps for bar in bars)
    assert len(programs) == 9  # three optimizers at three widths
    for bars in programs.values():
        # In one lane nothing overlaps, and while trials wait nothing idles.
        for lane in {bar.lane for bar in bars}:
            mine = sorted((bar.start, bar.start + bar.steps) for bar in bars if bar.lane == lane)
            assert mine[0][0] == 0
            assert all(a[1] == b[0] for a, b in itertools.pairwise(mine))
    figure = plot.timeline_figure(halved)
    assert "3 programs left out" in figure.get_suptitle()


class Page(html.parser.HTMLParser):
    """What a page holds, and that every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.data = [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "input"):
            self.open.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open:
            tag, attributes = self.open[-1]
            self.data.setdefault(attributes.get("id", tag), []).append(data)


def bred_population():
    """Six members of 16 reports; 4 copies 1 after report 2 of 16, then 0 copies 4 after 8."""
    space = {"lr": sweep.log_uniform(1e-4, 0.1), "dropout": sweep.uniform(0.0, 0.5)}
    results = made_up(6, space=space, stopping=False, population="pbt", diverged_above=9.0)
    exchanged = [
        Exchanged(0, 8, 4, {"lr": 0.003, "dropout": 0.1}),
        Exchanged(2, 8, 2, {"lr": 0.5, "dropout": 0.2}),  # its numbers alone changed
        Exchanged(4, 2, 1, {"lr": 0.02, "dropout": 0.3}),
    ]
    values = np.linspace(0.3, 0.5, 6)
    values[0] = 0.9
    trials = [
        t._replace(metrics=t.metrics | {"valid_accuracy": float(values[t.trial])})
        for t in results.trials
    ]
    curves = {name: results.curves(name) for name in results.curve_names}
    return sweep.Results(results.specification, trials, curves, {}, exchanged=exchanged)


def test_a_population_is_drawn_with_its_lineage_and_schedules():
    results = bred_population()
    above, *panels = plot.population_figure(results).axes
    assert all(tick == round(tick) for tick in above.get_yticks())
    assert "2 copies" in above.get_title("left")
    (arrows,) = [c for c in above.collections if len(c.get_segments()) == 2]
    ends = {tuple(map(tuple, segment.tolist())) for segment in arrows.get_segments()}
    assert ends == {((20.0, 1.0), (20.0, 4.0)), ((80.0, 4.0), (80.0, 0.0))}
    # The best member's weights were member 1's, then 4's, then its own.
    (line,) = above.patches
    np.testing.assert_array_equal(line.get_data().values, [1] * 2 + [4] * 6 + [0] * 8)
    assert [panel.get_ylabel() for panel in panels] == ["learning rate\n(log scale)", "dropout"]
    first = results.trials[1].config["lr"]
    learned = panels[0].patches[-1].get_data()
    np.testing.assert_allclose(learned.values, [first] * 2 + [0.02] * 6 + [0.003] * 8)
    np.testing.assert_array_equal(learned.edges, EVERY * np.arange(REPORTS + 1))
    assert len(panels[0].patches) == 7 and panels[0].get_yscale() == "log"


def test_a_populations_other_pictures_show_its_last_numbers():
    results = bred_population()
    figures = plot.report_figures(results)
    assert [*figures][:2] == ["curves", "population"]
    rates = results.columns()["lr"]
    assert rates[0] == 0.003 and rates[2] == 0.5 and rates[3] == results.schedule("lr")[3, 0]
    assert "population" not in plot.report_figures(made_up(8, stopping=False))
    # A number that only some members have.
    assert np.isnan(used([Exchanged(0, 1, 1, {})], [{"a": 1.0}, {"b": 2.0}], 3, "a")[1]).all()


def test_the_page_stands_alone(tmp_path):
    names = {"optimizer": sweep.choice("</script><b>", "adam"), "lr": sweep.log_uniform(1e-4, 1.0)}
    results = made_up(30, space=names | {"dropout": 0.1, "seed": sweep.seeds(2)})
    files = plot.write_report(results, tmp_path / "report")
    assert [f.name for f in files][:3] == ["report.html", "curves.png", "slices.png"]
    assert all(f.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for f in files[1:])
    page = Page(text := files[0].read_text())
    # Nothing is fetched from anywhere.
    links = [a[k] for _, a in page.seen for k in ("src", "href") if k in a]
    assert len(links) == len(files) - 1
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert "http" not in text.replace("http-equiv", "")
    assert all(a["alt"] for tag, a in page.seen if tag == "img")
    # The table's data are the results, and can be sorted with the keyboard.
    data = json.loads(page.data["data"][0])
    heads = page.data["button"]
    assert heads == data["columns"] and "dropout" not in heads
    at = heads.index("valid_accuracy")
    ours = [t.metrics["valid_accuracy"] for t in results.trials]
    assert [row[at] for row in data["rows"]] == pytest.approx(ours)
    assert data["sorted"] == at and data["down"] is True
    diverged = [row[heads.index("test_accuracy")] for row in data["rows"]]
    assert [value is None for value in diverged] == [t.status != "done" for t in results.trials]
    assert data["rows"][0][heads.index("optimizer")] in ("</script><b>", "adam")
    best = results.best
    value = f"{best.metrics['valid_accuracy']:.4g}"
    assert f"Best validation accuracy: {value}, trial {best.trial}" in text


def test_values_that_compare_equal_have_places_of_their_own():
    from tests.test_plot import make_results

    results = make_results(extra={"x": sweep.choice(True, 1)})
    assert "x" in varying_names(results)
    one = column(results, "x")
    assert [text for _, text in one.ticks] == ["True", "1"] and {*one.at.tolist()} == {0.0, 1.0}
    assert len(results.best_by("x")) == 2
    axes = sweep_figure(results, "x", "valid_accuracy").axes[-1]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["True", "1"]
    points = points_by_group(results, "lr", "valid_accuracy")
    assert {label.split()[-1] for label in points} == {"x=True", "x=1"}


ODD = ("$x", "a$b$", "[/nope]", "[red]x", "<b>&", "_^{", "\\\\frac", "größe", "%s")


@pytest.mark.parametrize("sign", ["max", "min"])
def test_texts_of_users_stand_as_they_are(tmp_path, sign, capsys):
    """In the terminal, in every picture and in the page, as names and as values."""
    from jdl.cli import summary, watch

    space = {
        "[/n]$": sweep.choice(*ODD),
        "$lr$_{": sweep.log_uniform(1e-4, 1.0),
        "[b]": sweep.choice(1, 10**19, 3**50, static=True),
    }
    metric = "valid_[i]$a$_{"
    trials = []
    for i in range(36):
        config = {
            "[/n]$": ODD[i % len(ODD)],
            "$lr$_{": 10 ** (-4 + i / 9),
            "[b]": space["[b]"].points[i % 3],
        }
        status = "diverged" if i == 5 else "done"
        trials.append(sweep.TrialResult(i, config, status, 2, {metric: 0.5 + 0.01 * i}))
    facts = {"steps": 2, "report_every": 1, "metric": metric, "goal": sign}
    curves = {metric: np.linspace(0.3, 0.8, 72).reshape(36, 2)}
    results = sweep.Results({"space": sweep.to_json(space), **facts}, trials, curves, {})
    results.show(50)
    summary.show(results, None)
    summary.show_trials(results, 40, metric)
    summary.console().print(watch.view(results))
    said = capsys.readouterr().out
    for text in (*ODD, "[/n]$", "[b]", str(10**19)):
        assert text in said, text
    for path in plot.write_report(results, tmp_path):
        assert path.stat().st_size
    page = (tmp_path / "report.html").read_text("utf-8")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    shown = {str(cell) for row in data["rows"] for cell in row}
    assert {*ODD, str(10**19), str(3**50)} <= shown
    for make in FIGURES.values():
        figure = make(results)
        figure.savefig(io.BytesIO())
        math_texts = [t.get_text() for t in figure.findobj(matplotlib.text.Text)
                      if t.get_parse_math() and "$" in t.get_text()]  # fmt: skip
        assert all(text.startswith("$\\mathdefault{") for text in math_texts)
    results.plot("$lr$_{", path=str(tmp_path / "one.png"))


def test_no_trial_is_best_where_no_metric_is_finite(tmp_path):
    trials = [sweep.TrialResult(i, {"lr": 0.1 + i}, "done", 2, {"valid_loss": math.nan})
              for i in range(3)]  # fmt: skip
    facts = {"steps": 2, "report_every": 1, "metric": "valid_loss", "goal": "min"}
    space = sweep.to_json({"lr": sweep.uniform(0.1, 3.0)})
    results = sweep.Results(
        {"space": space, **facts}, trials, {"valid_loss": np.full((3, 2), np.nan)}, {}
    )
    with pytest.raises(ValueError, match="valid_loss is not finite in any of the 3 that are done"):
        results.best  # noqa: B018
    plot.write_report(results, tmp_path)


@pytest.mark.parametrize("metric,bad", [("valid_accuracy", 0), ("valid_loss", 1)])
def test_diverged_trials_lie_at_the_bad_end(metric, bad):
    from tests.test_plot import make_results

    results = make_results(metric=metric, goal="min" if bad else "max")
    results._curves[metric] = np.array([[t.metrics[metric]] for t in results.trials])
    figure = plot.slice_figure(results)
    crosses = [line for line in figure.axes[0].get_lines() if line.get_marker() == "x"]
    assert len(crosses[0].get_ydata()) == results.count("diverged")
    assert np.abs(crosses[0].get_ydata() - bad).max() < 0.05
    axes, strip = sweep_figure(results, "lr", metric).axes
    place = [a.get_subplotspec().rowspan.start for a in (axes, strip)]
    assert (place[1] > place[0]) == (bad == 0)
    titled = axes if bad == 0 else strip
    assert titled.get_title("left").startswith("16 trials, 3 diverged, 3 stopped")


def test_every_trial_is_counted_and_what_was_interrupted_does_not_run():
    specification = {
        "space": sweep.to_json({"lr": sweep.uniform(0.0, 1.0), "mu": sweep.uniform(0.0, 1.0)}),
        "metric": "valid_loss", "goal": "min", "steps": 2, "report_every": 1,
    }  # fmt: skip
    ends = ["done"] * 4 + ["stopped"] * 3 + ["diverged"] * 2 + ["running"] * 5 + ["pending"]
    curves = np.array([[1.0 + i, 2.0 + i] for i in range(15)])
    curves[4:7, 1] = np.nan
    curves[8] = np.nan  # died before its first report
    curves[9:14, 1] = np.nan
    curves[13:] = np.nan
    trials = []
    for i, status in enumerate(ends):
        seen = curves[i][np.isfinite(curves[i])]
        last = {"valid_loss": float(seen[-1]) if seen.size else math.nan}
        config = {"lr": i / 20, "mu": (i * 7 % 15) / 20}
        trials.append(sweep.TrialResult(i, config, status, 2, last))
    for in_use, word in ((True, "running"), (False, "interrupted")):
        results = sweep.Results(specification, trials, {"valid_loss": curves}, {}, in_use=in_use)
        figure = plot.learning_curves_figure(results)
        labels = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
        counted = {label.split(" (")[0]: int(label.split("(")[1][:-1])
                   for label in labels if "(" in label}  # fmt: skip
        assert counted == {
            "ran to the end": 4, "stopped": 3, "diverged": 1, word: 4, "no finite report": 3,
        }  # fmt: skip
        keys = [t.get_text() for t in plot.slice_figure(results).legends[0].get_texts()]
        assert word in keys and "ran to the end" in keys
        title = plot.pair_figure(results).axes[0].get_title("left")
        assert "15 trials, 2 diverged, 3 stopped, 6 to come" in title
        assert f"5 {word}" in repr(results)
