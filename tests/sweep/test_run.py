"""The sweep as a whole: its streams, its compilations, divergence, and what it refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.engine.toys import EXAMPLES, dataset, line_trial

from jdl import nn, optim, sweep, train
from jdl.engine.goal import choose_goal
from jdl.sweep.run import check_kind
from jdl.train import Trial

QUIET = {"progress": False, "batch_size": 4}


def make_trial(hp):
    return line_trial(hp["lr"])


def run(space, epochs=2, **options):
    return sweep.run(make_trial, space, dataset(), epochs=epochs, **{**QUIET, **options})


def states(results):
    return {t.trial: t.state for t in results.trials}


def metrics_of(results, trial):
    return {name: results.curves(name)[trial] for name in ("train_loss", "valid_loss")}


LINE = {"lr": sweep.log_uniform(1e-3, 1e-1)}


def test_every_trial_matches_a_loop_by_hand():
    """Ten steps of NumPy gradient descent on the batches that each lane says it saw."""
    results = run(LINE, trials=5, keep=5, lanes=2, devices=2)
    data = dataset()
    for trial in results.trials:
        state = jax.tree.map(lambda a: a.astype(np.float64), trial.state)
        weights, losses = state.start, []
        for x, y in zip(state.x, state.y):
            losses.append(np.mean((x @ weights - y) ** 2))
            weights = weights - trial.config["lr"] * 2 / 4 * x.T @ (x @ weights - y)
        np.testing.assert_allclose(trial.state.weights, weights, rtol=1e-4)
        curve = results.curves("train_loss")[trial.trial]
        np.testing.assert_allclose(curve, np.reshape(losses, (2, 5)).mean(1), rtol=1e-4)
        for name, (x, y) in {"valid": data.valid, "test": data.test}.items():
            loss = np.mean((x @ weights - y) ** 2)
            np.testing.assert_allclose(trial.metrics[f"{name}_loss"], loss, rtol=1e-4)
        # An epoch is a permutation: five batches of four are the twenty examples.
        epochs = state.x.reshape(2, EXAMPLES, 3)
        for epoch in epochs:
            np.testing.assert_array_equal(
                np.sort(epoch[:, 0]), np.sort(data.train[0][:, 0].astype(np.float64))
            )
        assert not np.array_equal(*epochs)
        assert trial.status == "done" and trial.steps == 10
    assert len({t.state.start.tobytes() for t in results.trials}) == 5


@pytest.fixture(scope="module")
def alone():
    """Each of six trials in a sweep with one lane on one device."""
    return run(LINE, trials=6, keep=6, lanes=1, devices=1)


@pytest.mark.parametrize("lanes,devices,trials", [(8, 1, 6), (1, 2, 6), (4, 2, 6), (3, 1, 11)])
def test_streams_do_not_depend_on_lanes_devices_or_other_trials(alone, lanes, devices, trials):
    other = run(LINE, trials=trials, keep=trials, lanes=lanes, devices=devices)
    for trial in range(6):
        one, two = states(alone)[trial], states(other)[trial]
        np.testing.assert_array_equal(one.masks, two.masks)
        np.testing.assert_array_equal(one.x, two.x)
        np.testing.assert_array_equal(one.start, two.start)
        np.testing.assert_allclose(one.weights, two.weights, rtol=1e-5)
        for name, curve in metrics_of(alone, trial).items():
            np.testing.assert_allclose(curve, metrics_of(other, trial)[name], rtol=1e-5)


def test_streams_of_trials_differ(alone):
    masks = {state.masks.tobytes() for state in states(alone).values()}
    assert len(masks) == 6
    steps = states(alone)[0].masks
    assert len({row.tobytes() for row in steps}) == 10


def test_the_same_run_twice_is_equal_to_the_bit(alone):
    again = run(LINE, trials=6, keep=6, lanes=1, devices=1)
    for name in ("train_loss", "valid_loss"):
        np.testing.assert_array_equal(alone.curves(name), again.curves(name))


def test_seeds_share_streams_across_configurations():
    space = {"lr": sweep.choice(0.01, 0.02), "seed": sweep.seeds(3)}
    results = run(space, keep=6)
    by = {(t.config["lr"], t.config["seed"]): t.state for t in results.trials}
    for seed in range(3):
        np.testing.assert_array_equal(by[0.01, seed].masks, by[0.02, seed].masks)
        np.testing.assert_array_equal(by[0.01, seed].x, by[0.02, seed].x)
        np.testing.assert_array_equal(by[0.01, seed].start, by[0.02, seed].start)
    assert not np.array_equal(by[0.01, 0].masks, by[0.01, 1].masks)


def test_the_root_seed_changes_every_stream(alone):
    other = run(LINE, trials=6, keep=6, lanes=1, devices=1, seed=1)
    assert not np.array_equal(states(alone)[0].masks, states(other)[0].masks)


@pytest.fixture
def compilations(monkeypatch):
    """Counts what XLA compiles, by its own events, where nothing is found in the cache."""
    monkeypatch.setenv("JDL_CACHE_DIR", "")
    events = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("trials", [10, 10_000])
def test_one_compilation_per_static_group(compilations, trials):
    def make(hp):
        scale = {"half": 0.5, "whole": 1.0, "double": 2.0}[hp["scale"]]
        return line_trial(hp["lr"] * scale, steps=1)

    space = {**LINE, "scale": sweep.choice("half", "whole", "double")}
    results = sweep.run(
        make, space, dataset(), trials=trials, steps=1, lanes=64, devices=2, seed=1, **QUIET
    )
    groups = len({t.config["scale"] for t in results.trials})
    assert groups == 3 and results.count("done") == trials
    assert results.programs == groups
    # A group's segment, what places new trials in its lanes, and one to draw the weights of all.
    assert len(compilations) == 2 * groups + 1


def test_a_diverging_lane_harms_no_other():
    def curves(rate):
        space = {"lr": sweep.choice(0.01, 0.02, rate, 0.04)}
        return run(space, lanes=4, devices=1, epochs=4, search="grid")

    harmless, broken = curves(0.03), curves(1e10)
    bad = broken.trials[2]
    assert bad.status == "diverged" and bad.metrics["valid_loss"] != bad.metrics["valid_loss"]
    for trial in (0, 1, 3):
        for name, curve in metrics_of(harmless, trial).items():
            np.testing.assert_array_equal(curve, metrics_of(broken, trial)[name])
    # By hand: after step 0 the weights are some 1e10, and the loss at step 1 is past 1e6.
    assert bad.steps == 1
    assert broken.count("done") == 3


def test_a_diverged_trial_gives_its_lane_to_the_next():
    space = {"lr": sweep.choice(*[1e10, 0.01] * 4), "seed": sweep.seeds(1)}
    results = run(space, lanes=2, devices=1)
    assert results.count("diverged") == 4 and results.count("done") == 4
    assert all(t.config["lr"] == 0.01 for t in results.trials if t.status == "done")


def test_batches_larger_than_one_chunk_evaluate_to_the_mean_over_the_split():
    whole = run({"lr": 0.05}, eval_batch_size=100)
    parts = run({"lr": 0.05}, eval_batch_size=3)
    np.testing.assert_allclose(whole.curves("valid_loss"), parts.curves("valid_loss"), rtol=1e-5)


def test_static_numbers_and_traced_numbers():
    seen = []

    def make(hp):
        seen.append(hp)
        assert isinstance(hp["width"], int) and isinstance(hp["name"], str)
        return line_trial(hp["lr"])

    space = {
        "width": sweep.choice(2, 4, static=True),
        "name": "a",
        "lr": sweep.log_grid(0.01, 0.1, 2),
    }
    results = sweep.run(make, space, dataset(), epochs=1, **QUIET)
    assert results.programs == 2 and len(results.trials) == 4
    assert any(isinstance(hp["lr"], jax.core.Tracer) for hp in seen)
    assert [t.config["width"] for t in results.trials] == [2, 2, 4, 4]


def test_results_tell_means_over_seeds():
    results = run({"lr": sweep.choice(0.01, 0.1), "seed": sweep.seeds(3)}, metric="valid_loss")
    for summary in results.configurations():
        values = [results.trials[t].metrics["valid_loss"] for t in summary.trials]
        np.testing.assert_allclose(summary.mean, np.mean(values))
        np.testing.assert_allclose(summary.stderr, np.std(values, ddof=1) / np.sqrt(3))
    means = [s.mean for s in results.configurations()]
    assert means == sorted(means) and len(means) == 2
    assert results.best.metrics["valid_loss"] == min(
        t.metrics["valid_loss"] for t in results.trials
    )
    frame = results.to_pandas()
    assert list(frame["lr"]) == [0.01] * 3 + [0.1] * 3 and set(frame["status"]) == {"done"}
    assert results.curves("valid_loss").shape == (6, 2)
    np.testing.assert_array_equal(results.steps, [5, 10])


def test_asha_stops_most_trials_and_keeps_the_best():
    space = {"lr": sweep.log_uniform(1e-4, 1e-1), "seed": sweep.seeds(1)}
    full = run(space, trials=32, epochs=16, lanes=4, devices=1)
    halved = run(space, trials=32, epochs=16, lanes=4, devices=1, stopping=sweep.asha())
    assert halved.count("stopped") > 16
    assert halved.stats["lane_steps"] < 0.6 * full.stats["lane_steps"]
    assert halved.programs == 1
    assert halved.best.trial == full.best.trial


def test_numbers_on_which_nothing_depends_are_named(capsys):
    """A misspelt one for instance; those that `init`, `step` or `evaluate` reads are not."""

    def make(hp):
        trial = line_trial(hp["lr"])
        evaluate = trial.evaluate

        def init(key, batch):
            state = trial.init(key, batch)
            return state._replace(weights=state.weights * hp["scale"])

        return trial._replace(
            init=init,
            evaluate=lambda state, batch: {"loss": evaluate(state, batch)["loss"] + hp["offset"]},
        )

    space = {name: sweep.uniform(0.1, 0.2) for name in ("lr", "scale", "offset", "dropuot")}
    space |= {"seed": sweep.seeds(2)}
    sweep.run(make, space, dataset(), trials=4, epochs=1, batch_size=4)
    assert "No trial depends on dropuot. Does" in capsys.readouterr().err

    # One that exists for another program alone is not misspelt, though nothing depends on it yet.
    space = {"lr": 0.1, "kind": sweep.choice("a", "b"), "mu": sweep.when("kind", "b", 0.5)}
    only_a = [{"lr": 0.1, "kind": "a"}]
    for adaptive in (False, True):
        search = sweep.Search(
            lambda n: [only_a.pop() for _ in only_a], lambda *_: None, "a", adaptive
        )
        sweep.run(
            lambda hp: line_trial(hp["lr"]), space, dataset(), trials=1, epochs=1, batch_size=4,
            search=search,
        )  # fmt: skip
        only_a.append({"lr": 0.1, "kind": "a"})
    assert "depends" not in capsys.readouterr().err


def test_one_rule_says_which_metrics_are_better_larger():
    def make(hp):
        trial = line_trial(hp["lr"])
        evaluate = lambda *a: {**trial.evaluate(*a), "margin": -trial.evaluate(*a)["loss"]}  # noqa: E731
        return trial._replace(evaluate=evaluate)

    results = sweep.run(
        make, {"lr": sweep.choice(1e-4, 0.05)}, dataset(), epochs=4, batch_size=4, progress=False,
        metric="valid_margin", goal="max",
    )  # fmt: skip
    assert results.best.config["lr"] == 0.05
    names = ["valid_margin", "test_margin", "valid_loss", "valid_f1", "valid_update_ratio"]
    assert [*map(results.larger_is_better, names)] == [True, True, False, True, False]
    for name in ("valid_margin", "test_margin", "valid_loss"):
        assert results.configurations(name)[0].config["lr"] == 0.05


class TestErrors:
    """Each is raised before anything is compiled, and says what was expected."""

    @pytest.fixture(autouse=True)
    def nothing_compiled(self, compilations):
        yield
        assert not compilations

    def test_empty_space(self):
        with pytest.raises(ValueError, match="space is empty"):
            run({})

    def test_reversed_bounds(self):
        with pytest.raises(ValueError, match=r"low < high, got low=1.0, high=0.1.*reversed"):
            sweep.log_uniform(1.0, 0.1)

    @pytest.mark.parametrize("low", [0.0, -1.0])
    def test_a_rate_that_is_not_positive(self, low):
        with pytest.raises(ValueError, match=r"`low` of `log_uniform` must be in \(0, inf\)"):
            sweep.log_uniform(low, 1.0)

    @pytest.mark.parametrize("rate", [0.0, -0.1])
    def test_a_rate_out_of_range_deep_in_the_space(self, rate):
        from jdl import nn, optim, train

        def make(hp):
            return train.regressor(nn.dense(1), optim.sgd(hp["lr"]))

        space = {"lr": sweep.choice(0.1, rate, 0.2)}
        with pytest.raises(ValueError, match=f"`learning_rate` must be .*{rate}") as error:
            sweep.run(make, space, dataset(), epochs=1, **QUIET)
        assert any(f"'lr': {rate}" in note for note in error.value.__notes__)

    @pytest.mark.parametrize("target", [float("nan"), float("inf"), -float("inf")])
    def test_a_target_that_nothing_reaches(self, target):
        with pytest.raises(ValueError, match=f"`target` must be .*{target}"):
            run(LINE, trials=2, target=target)

    def test_a_metric_whose_name_does_not_tell(self):
        for metric, sign in {"acc": 1, "valid_f1": 1, "test_mse": -1, "perplexity": -1}.items():
            assert choose_goal({metric}, metric, None) == (metric, sign)
        for metric in ("margin", "loss_of_accuracy", "maccs"):
            with pytest.raises(ValueError, match=f"`goal`.*larger '{metric}' is better"):
                choose_goal({metric}, metric, None)
            assert choose_goal({metric}, metric, "max").sign == 1

    def test_a_list_in_the_space(self):
        with pytest.raises(ValueError, match=r"sweep.choice\(0.1, 0.01\) tries each"):
            run({"lr": [0.1, 0.01]})
        with pytest.raises(ValueError, match=r"one by one, choice\(0.1, 0.01\)"):
            sweep.choice([0.1, 0.01])

    def test_a_negative_seed(self):
        with pytest.raises(ValueError, match=r"`seed` must be an integer .*, got seed=-1"):
            run(LINE, trials=2, seed=-1)

    @pytest.mark.parametrize("trials", [0, -3])
    def test_trials(self, trials):
        with pytest.raises(ValueError, match=f"`trials` must be an integer.*{trials}"):
            run(LINE, trials=trials)

    def test_a_grid_of_infinitely_many(self):
        with pytest.raises(ValueError, match="needs `trials`"):
            run(LINE)
        with pytest.raises(ValueError, match="finitely many values of `lr`"):
            run(LINE, search="grid")

    def test_a_batch_larger_than_the_training_set(self):
        with pytest.raises(ValueError, match=f"{EXAMPLES}, got batch_size=21"):
            run({"lr": 0.1}, batch_size=21)

    def test_data_with_nan(self):
        data = dataset()
        data.train[0][3, 1] = np.nan
        with pytest.raises(ValueError, match=r"train x\[3, 1\] is nan"):
            sweep.run(make_trial, {"lr": 0.1}, data, epochs=1, **QUIET)

    def test_epochs_and_steps(self):
        with pytest.raises(ValueError, match="either `epochs` or `steps`"):
            run({"lr": 0.1}, steps=5)
        with pytest.raises(ValueError, match="`report_every` must divide the 10 steps"):
            run({"lr": 0.1}, report_every=3)

    def test_an_unknown_optimizer(self):
        def make(hp):
            return train.regressor(nn.dense(1), optim.by_name(hp["optimizer"])(0.1))

        with pytest.raises(ValueError, match="'adamm'"):
            sweep.run(
                make, {"optimizer": sweep.choice("sgd", "adamm")}, dataset(), epochs=1, **QUIET
            )

    def test_a_number_used_as_a_shape(self):
        def make(hp):
            return line_trial(0.1)._replace(init=lambda key, batch: jnp.zeros(hp["width"]))

        with pytest.raises(ValueError, match="static=True"):
            sweep.run(make, {"width": sweep.integer(1, 4)}, dataset(), epochs=1, **QUIET)

    def test_a_number_that_a_layer_refuses_to_trace(self):
        def make(hp):
            if isinstance(hp["width"], jax.core.Tracer):
                raise TypeError("It sets a shape, so it cannot be traced.")
            return line_trial(0.1)

        with pytest.raises(ValueError, match=r"static=True.*(\n|.)*cannot be traced"):
            sweep.run(make, {"width": sweep.integer(1, 4)}, dataset(), epochs=1, **QUIET)

    def test_an_if_on_a_number(self):
        def make(hp):
            return line_trial(0.1 if hp["lr"] > 0.5 else 0.2)

        with pytest.raises(ValueError, match="used a hyperparameter as a Python value"):
            sweep.run(make, {"lr": sweep.uniform(0, 1)}, dataset(), trials=2, epochs=1, **QUIET)

    def test_a_state_that_changes_its_shape(self):
        def make(hp):
            trial = line_trial(hp["lr"])

            def step(state, batch, key):
                state, metrics = trial.step(state, batch, key)
                return state._replace(weights=state.weights[None, :]), metrics

            return trial._replace(step=step)

        with pytest.raises(TypeError, match=r"weights: \(\(3,\), 'float32'\) at init"):
            sweep.run(make, {"lr": 0.1}, dataset(), epochs=1, **QUIET)

    def test_metrics_that_are_no_scalars(self):
        def make(hp):
            trial = line_trial(hp["lr"])
            return trial._replace(evaluate=lambda state, batch: {"loss": batch[1]})

        with pytest.raises(TypeError, match=r"evaluate must return metrics as a dict .*\(7,\)"):
            sweep.run(make, {"lr": 0.1}, dataset(), epochs=1, **QUIET)

    def test_no_trial(self):
        with pytest.raises(TypeError, match=r"must return a jdl\.train\.Trial, got int"):
            sweep.run(lambda hp: 3, {"lr": 0.1}, dataset(), epochs=1, **QUIET)

    def test_a_metric_that_is_not_reported(self):
        with pytest.raises(ValueError, match=r"`metric` must be one of \['train_loss'"):
            run({"lr": 0.1}, metric="valid_accuracy")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"keep": -1}, "`keep` must be an integer of at least 0, got keep=-1"),
            ({"checkpoint_seconds": -1.0}, "`checkpoint_seconds` must be in"),
            ({"checkpoint_seconds": float("nan")}, "`checkpoint_seconds` must be in"),
            ({"lanes": 0}, "`lanes` must be an integer of at least 1, got lanes=0"),
            ({"devices": []}, "`devices` needs at least one device"),
            ({"search": sweep.grid_search({"rate": 0.1})}, "search gives {'rate': 0.1}, but the"),
            ({"search": sweep.grid_search({"rate": 0.1, "lr": 1})}, "'rate' is only in one"),
        ],
    )
    def test_what_would_only_fail_later(self, options, message):
        with pytest.raises(ValueError, match=message):
            run({"lr": 0.1}, **options)

    @pytest.mark.parametrize("given", ["asha", sweep.asha])
    def test_a_rule_that_is_none(self, given):
        # The types that tests check would say it first.
        with pytest.raises(
            ValueError, match=r"`stopping` must be as sweep\.asha\(\) gives it, got"
        ):
            check_kind("stopping", given, sweep.Stopping, "asha")

    @pytest.mark.parametrize("devices", [0, 99])
    def test_devices(self, devices):
        with pytest.raises(ValueError, match=f"`devices` must be from 1 to 8.*{devices}"):
            run({"lr": 0.1}, devices=devices)


def test_a_trial_whose_state_holds_a_typed_key():
    def make(hp):
        trial = line_trial(hp["lr"])
        return Trial(
            lambda key, batch: (
                trial.init(jax.random.fold_in(key, 0), batch),
                jax.random.fold_in(key, 1),
            ),
            lambda state, batch, key: (
                (trial.step(state[0], batch, key)[0], jax.random.fold_in(state[1], 1)),
                {"loss": jnp.float32(1)},
            ),
            lambda state, batch: trial.evaluate(state[0], batch),
        )

    results = sweep.run(make, {"lr": 0.1}, dataset(), epochs=1, **QUIET)
    assert jax.dtypes.issubdtype(results.best.state[1].dtype, jax.dtypes.prng_key)


def test_a_change_of_epochs_or_seeds_alone_is_named_as_that(tmp_path):
    space = {"lr": sweep.choice(0.01, 0.02), "seed": sweep.seeds(2)}
    assert run(space, out=tmp_path).complete
    for changed, epochs, says in (
        (space, 3, "steps: 10 there, 15 now, by `steps` or `epochs`"),
        (space | {"seed": sweep.seeds(3)}, 2, "space.seed.seeds: 2 there, 3 now"),
    ):
        with pytest.raises(sweep.StoreError) as error:
            run(changed, epochs=epochs, out=tmp_path)
        assert says in str(error.value) and "make_trial" not in str(error.value)


def renamed(names):
    def make(hp):
        trial = line_trial(hp["lr"])

        def evaluate(state, batch):
            (loss,) = trial.evaluate(state, batch).values()
            return dict.fromkeys(names, loss)

        return trial._replace(evaluate=evaluate)

    return make


@pytest.mark.parametrize(
    "names,extra,message",
    [
        (["loss", "Loss"], {}, "'valid_Loss' and 'valid_loss' differ in case only"),
        (["loss"], {"valid_loss": 0.5}, "'valid_loss' is both a hyperparameter and a metric"),
        (["loss"], {"test_loss": 0.5}, "'test_loss' is both a hyperparameter and a metric"),
        (["loss", "a\0"], {}, "without NUL"),
    ],
)
def test_names_that_collide_are_refused_before_anything_is_written(tmp_path, names, extra, message):
    with pytest.raises(ValueError, match=message):
        sweep.run(
            renamed(names),
            LINE | extra,
            dataset(),
            trials=2,
            epochs=1,
            out=tmp_path / "run",
            **QUIET,
        )
    assert not (tmp_path / "run").exists()


def test_a_metric_may_have_any_other_name(tmp_path):
    names = ["loss", 'a "b"', "[red]$x$", "x; y"]
    results = sweep.run(
        renamed(names),
        LINE,
        dataset(),
        trials=2,
        epochs=2,
        out=tmp_path,
        metric="valid_loss",
        **QUIET,
    )
    for name in names:
        np.testing.assert_array_equal(
            sweep.read(tmp_path).curves(f"valid_{name}"), results.curves("valid_loss")
        )
