"""Parts of a sweep: together they are the whole, bit for bit, and `merge` accepts nothing else."""

from __future__ import annotations

import shutil

import jax
import numpy as np
import pytest
from tests.engine.toys import dataset, line_trial

from jdl import sweep
from jdl.engine.journal import Journal

SPACE = {
    "scale": sweep.choice("half", "whole", "double"),
    "lr": sweep.log_grid(0.01, 0.1, 7),
    "seed": sweep.seeds(2),
}
RANDOM = {"lr": sweep.log_uniform(0.01, 10.0), "scale": sweep.choice("half", "whole")}


def make(hp):
    return line_trial(hp["lr"] * {"half": 0.5, "whole": 1.0, "double": 2.0}[hp["scale"]])


def run(space=SPACE, **options):
    options = {"epochs": 3, "batch_size": 4, "seed": 5, "progress": False, "keep": 4} | options
    return sweep.run(make, space, dataset(), devices=2, lanes=2, **options)


def same(one, other):
    for a, b in zip(one.trials, other.trials, strict=True):
        assert a[:4] == b[:4]
        np.testing.assert_equal(a.metrics, b.metrics)
    for name in one._curves:
        np.testing.assert_array_equal(one.curves(name), other.curves(name))


@pytest.mark.parametrize(
    ("space", "options", "parts"),
    [(SPACE, {}, 4), (SPACE, {}, 1), (RANDOM, {"trials": 23}, 5), (RANDOM, {"trials": 3}, 3)],
)
def test_merged_parts_are_the_whole(tmp_path, space, options, parts):
    whole = run(space, out=tmp_path / "whole", **options)
    folders = [tmp_path / f"{k}" for k in range(1, parts + 1)]
    pieces = [
        run(space, part=(k, parts), out=folder, **options) for k, folder in enumerate(folders, 1)
    ]
    sizes = [len(piece.trials) for piece in pieces]
    assert sum(sizes) == len(whole.trials) and max(sizes) - min(sizes) <= 1
    merged = sweep.merge(folders[::-1], tmp_path / "merged")
    same(whole, merged)
    same(whole, sweep.read(tmp_path / "merged"))
    kept = [[t.trial for t in r.trials if t.state is not None] for r in (whole, merged)]
    assert kept[0] == kept[1] and len(kept[0]) == min(4, whole.count("done")) > 0
    assert merged.specification == whole.specification and merged.complete
    # The call without a part finds the merged run, with its states, and runs nothing.
    again = run(space, out=tmp_path / "merged", **options)
    same(whole, again)
    for a, b in zip(whole.trials, again.trials):
        assert (a.state is None) == (b.state is None)
        if a.state is not None:
            jax.tree.map(np.testing.assert_array_equal, a.state, b.state)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    top = tmp_path_factory.mktemp("parts")
    for k in (1, 2, 3):
        run(part=(k, 3), out=top / f"{k}")
    return top


def test_missing_parts_are_named_and_a_repeated_one_counts_once(folders, tmp_path):
    with pytest.raises(sweep.StoreError, match=r"Part 2 of 3 missing\."):
        sweep.merge([folders / "1", folders / "3"], tmp_path / "out")
    with pytest.raises(sweep.StoreError, match=r"Parts 1, 3 of 3 missing\."):
        sweep.merge([folders / "2"], tmp_path / "out")
    shutil.copytree(folders / "2", tmp_path / "again")
    parts = [folders / "1", tmp_path / "again", folders / "3", folders / "2"]
    assert len(sweep.merge(parts, tmp_path / "out").trials) == 42
    with pytest.raises(sweep.StoreError, match="out holds a run already"):
        sweep.merge(parts, tmp_path / "out")


def test_other_runs_are_refused(folders, tmp_path):
    run(part=(2, 3), out=tmp_path / "seed", seed=6)
    with pytest.raises(sweep.StoreError, match=r"parts of different sweeps:\n  seed: 5 there, 6"):
        sweep.merge([folders / "1", tmp_path / "seed", folders / "3"], tmp_path / "out")
    run(part=(2, 4), out=tmp_path / "of")
    with pytest.raises(sweep.StoreError, match=r"part.of: 3 there, 4 now"):
        sweep.merge([folders / "1", tmp_path / "of"], tmp_path / "out")
    run(out=tmp_path / "whole")
    with pytest.raises(sweep.StoreError, match="holds no part of a sweep: it was run without"):
        sweep.merge([tmp_path / "whole"], tmp_path / "out")
    with pytest.raises(sweep.StoreError, match="holds no run"):
        sweep.merge([tmp_path / "nothing"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_part_that_differs_or_is_not_finished_is_refused(folders, tmp_path, monkeypatch):
    run(part=(2, 3), out=tmp_path / "cut", seconds=1e-9)
    with pytest.raises(sweep.StoreError, match=r"Part 2 of 3 in .*cut is not finished: \d+ of"):
        sweep.merge([folders / "1", tmp_path / "cut", folders / "3"], tmp_path / "out")
    run(part=(2, 3), out=tmp_path / "cut")  # goes on
    assert len(sweep.merge([folders / "1", tmp_path / "cut", folders / "3"], tmp_path / "a").trials)
    monkeypatch.setattr("jdl.engine.keys._INIT_STREAM", 17)  # another machine's other numbers
    from jdl.engine import keys

    keys._block.cache_clear()
    run(part=(2, 3), out=tmp_path / "other")
    keys._block.cache_clear()
    parts = [folders / str(k) for k in (1, 2, 3)]
    with pytest.raises(sweep.StoreError, match=r"runs of the same part, but trial 0 of it differs"):
        sweep.merge([*parts, tmp_path / "other"], tmp_path / "out")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (3, r"`part` must be a pair \(k, n\) of integers .*, part k of n, got part=3"),
        ("34", "must be a pair"),
        ((0, 3), r"a pair \(k, n\) of integers with 1 <= k <= n, .* got part=\(0, 3\)"),
        ((4, 3), r"1 <= k <= n, .* got part=\(4, 3\)"),
        ((1.5, 3), r"of integers with 1 <= k <= n, .* got part=\(1.5, 3\)"),
        ((True, 3), "of integers"),
        ((1, 43), "Part 1 of 43 is empty: there are 42 trials in all"),
    ],
)
def test_bad_parts(part, message):
    with pytest.raises((ValueError, TypeError), match=message):
        run(part=part)


def test_what_compares_trials_of_all_parts_is_refused():
    for options in (
        {"stopping": sweep.asha()}, {"population": sweep.pbt()}, {"target": 0.5},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"`{next(iter(options))}` compares trials of all"):
            run(part=(1, 2), **options)
    learns = sweep.Search(lambda n: [], lambda c, s: None, "learner", adaptive=True)
    with pytest.raises(ValueError, match="learner learns from all trials"):
        run(part=(1, 2), search=learns)
    endless = sweep.Search(lambda n: [{"lr": 0.1}] * n, lambda c, s: None, "endless")
    with pytest.raises(ValueError, match="endless has no end, so `part` needs `trials`"):
        run({"lr": 0.1}, part=(1, 2), search=endless)
    space = {"scale": "half", "lr": sweep.grid(0.1, 0.2, 2)}
    used = sweep.grid_search(space)
    run(space, part=(1, 2), search=used)
    with pytest.raises(
        ValueError, match=r"gave no configuration\. A search that one sweep has used"
    ):
        run({"lr": sweep.grid(0.1, 0.2, 2)}, part=(2, 2), search=used)
    for folders, out in (([None], "all"), ([3], "all"), (["runs/1"], 3)):
        with pytest.raises(TypeError, match=r"A folder must be a path, got (None|3)"):
            sweep.merge(folders, out)
    with pytest.raises(ValueError, match=r"`folders` must list the folders"):
        sweep.merge("runs/1", "runs/all")
    with pytest.raises(ValueError, match=r"`folders` must list the folders"):
        sweep.merge([], "runs/all")


def test_a_part_takes_the_width_of_the_whole_unless_most_lanes_would_idle(tmp_path):
    space = {"lr": sweep.log_grid(0.01, 0.1, 48)}

    def width(**options):
        results = sweep.run(
            lambda hp: line_trial(hp["lr"]), space, dataset(), epochs=1, batch_size=4, devices=1,
            progress=False, **options,
        )  # fmt: skip
        return next(iter(results.plans.values()))["lanes"]

    assert (width(), width(part=(1, 3)), width(part=(1, 8))) == (24, 24, 6)


def test_parts_of_other_metrics_are_refused(tmp_path):
    space = {"mode": sweep.choice("extra", "plain"), "lr": sweep.grid(0.01, 0.02, 2)}

    def with_more(hp):
        trial = line_trial(hp["lr"])
        if hp["mode"] == "plain":
            return trial
        return trial._replace(evaluate=lambda s, b: trial.evaluate(s, b) | {"extra": 1.0})

    for k in (1, 2):
        sweep.run(
            with_more, space, dataset(), epochs=1, batch_size=4, progress=False, part=(k, 2),
            out=tmp_path / f"{k}",
        )  # fmt: skip
    for order in ((1, 2), (2, 1)):
        with pytest.raises(sweep.StoreError, match="Every trial must report the same metrics"):
            sweep.merge([tmp_path / f"{k}" for k in order], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_merge_that_fails_half_way_leaves_no_run_and_can_be_repeated(
    folders, tmp_path, monkeypatch
):
    parts = [folders / str(k) for k in (1, 2, 3)]
    absorb, calls = Journal.absorb, []

    def fails(self, *args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return absorb(self, *args)

    monkeypatch.setattr(Journal, "absorb", fails)
    with pytest.raises(KeyboardInterrupt):
        sweep.merge(parts, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # One that was killed leaves a folder in the folder.
    (tmp_path / "out" / ".merging").mkdir(parents=True)
    (tmp_path / "out" / ".merging" / "run.sqlite").write_text("half")
    assert len(sweep.merge(parts, tmp_path / "out").trials) == 42
    assert not (tmp_path / "out" / ".merging").exists()


def test_of_parts_that_kept_unequally_many_states_the_fewest_are_kept(folders, tmp_path):
    run(part=(2, 3), out=tmp_path / "few", keep=1)
    merged = sweep.merge([folders / "1", tmp_path / "few", folders / "3"], tmp_path / "out")
    assert [t.trial for t in merged.trials if t.state is not None] == [merged.best.trial]
