"""The state that `fit` starts from, gives back and keeps in its folder."""

from __future__ import annotations

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.engine.toys import dataset, line_trial

from jdl import data, nn, optim, sweep, train

OPTIONS = {"progress": False, "batch_size": 4, "steps": 20, "report_every": 5}


def fit(trial=None, splits=None, **options):
    trial = line_trial(0.05, steps=40) if trial is None else trial
    return train.fit(trial, splits or dataset(), **{**OPTIONS, **options})


def stop_at(step):
    def stop(report):
        if report.step == step:
            raise KeyboardInterrupt

    return stop


def killed(folder, at=15, **options):
    with pytest.raises(KeyboardInterrupt):
        fit(out=folder, callbacks=[stop_at(at)], checkpoint_seconds=0, **options)
    assert (folder / "checkpoint.safetensors").exists()


def test_a_checkpoint_beside_a_new_database_is_refused(tmp_path):
    killed(tmp_path)
    for file in tmp_path.glob("run.sqlite*"):
        file.unlink()
    message = r"checkpoint.safetensors belongs to another run than run.sqlite .* Delete that file"
    with pytest.raises(train.CheckpointError, match=message):
        fit(out=tmp_path, seed=3)
    (tmp_path / "checkpoint.safetensors").unlink()
    anew, alone = fit(out=tmp_path, seed=3), fit(seed=3)
    assert len(anew.steps) == 4
    np.testing.assert_array_equal(anew.state.weights, alone.state.weights)


def test_a_checkpoint_beside_an_older_database_is_refused(tmp_path):
    run, copy = tmp_path / "run", tmp_path / "copy"
    killed(run, at=10)
    shutil.copytree(run, copy)
    killed(run, at=20)
    shutil.copy(run / "checkpoint.safetensors", copy)
    with pytest.raises(train.CheckpointError, match=r"after turn 3, but .* turn 2: it is an older"):
        fit(out=copy)


def test_the_state_of_another_finished_run_is_refused(tmp_path):
    fit(out=tmp_path / "one", seed=1)
    fit(out=tmp_path / "two", seed=2)
    state = tmp_path / "two" / "state.safetensors"
    shutil.copy(tmp_path / "one" / "state.safetensors", state)
    with pytest.raises(train.CheckpointError, match=r"state.safetensors belongs to another run"):
        fit(out=tmp_path / "two", seed=2)
    state.unlink()
    with pytest.raises(train.CheckpointError, match=r"state.safetensors is missing"):
        fit(out=tmp_path / "two", seed=2)


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("keep", ["best", "last"])
def test_without_a_finite_report_the_last_state_is_kept(tmp_path, folder, keep):
    """Validation that is never finite while training goes well."""
    inner = line_trial(0.05, steps=40)
    told = lambda state, batch: {"loss": jnp.log(-jnp.ones(()))}  # noqa: E731
    out = tmp_path / "run" if folder else None
    for _ in range(2 if folder else 1):
        result = fit(inner._replace(evaluate=told), keep=keep, out=out)
        assert result.step == 20 == result.state.step and result.status == "done"
        whole = fit(keep="last")
        np.testing.assert_array_equal(result.state.weights, whole.state.weights)
    first = fit(line_trial(1e30, steps=40), keep=keep)
    # The first step is sound, the second is not.
    assert first.status == "diverged" and first.step == 1 == first.state.step
    np.testing.assert_array_equal(first.state.x[1:], 0)


STREAM = data.Stream(lambda step: data.batches(dataset().train, jax.random.key(0), 4, start=step))


@pytest.mark.parametrize("form", ["given", "on the host", "on the device", "streamed"])
def test_a_run_goes_on_from_a_state(form):
    first = fit(keep="last")
    splits = dataset()._replace(train=STREAM) if form == "streamed" else None
    place = {"on the host": np.asarray, "on the device": jnp.asarray}.get(form, lambda a: a)
    state = jax.tree.map(place, first.state)
    second = fit(splits=splits, keep="last", state=state, seed=7)
    # The trial counts its own steps and writes down its batches: both go on.
    assert second.step == 20 and second.state.step == 40
    np.testing.assert_array_equal(second.state.start, first.state.start)
    np.testing.assert_array_equal(second.state.x[:20], first.state.x[:20])
    w = np.asarray(first.state.weights, np.float64)
    for x, y in zip(second.state.x[20:], second.state.y[20:]):
        w = w - 0.05 * 2 * x.T @ (x @ w - y) / 4
    np.testing.assert_allclose(second.state.weights, w, rtol=1e-4, atol=1e-6)
    # The given state is still the user's.
    np.testing.assert_array_equal(state.weights, first.state.weights)


def test_a_run_from_a_state_resumes_from_that_state_alone(tmp_path):
    first, other = fit(keep="last"), fit(keep="last", seed=5)
    killed(tmp_path, state=first.state)
    for wrong in (other.state, None):
        with pytest.raises(ValueError, match=r"another specification:\n  state: \d+ there"):
            fit(out=tmp_path, state=wrong)
    resumed, whole = fit(out=tmp_path, state=first.state), fit(state=first.state)
    np.testing.assert_array_equal(resumed.state.weights, whole.state.weights)


def random_walk():
    """A state of a typed key, a Python number and a count."""

    def step(state, batch, key):
        own, drawn = jax.random.split(state["key"])
        at = state["at"] + jax.random.normal(drawn)
        return {"key": own, "at": at, "n": state["n"] + 1}, {"loss": at**2}

    return train.Trial(
        init=lambda key, batch: {"key": key, "at": 0.5, "n": 0},
        step=step,
        evaluate=lambda state, batch: {"loss": state["at"] ** 2},
    )


def test_typed_keys_and_python_numbers_go_on():
    start = {"key": jax.random.key(9), "at": 0.25, "n": 3}
    result = fit(random_walk(), keep="last", state=start)
    with jax.debug_key_reuse(False):
        key, at = jax.random.key(9), 0.25
        for _ in range(20):
            key, drawn = jax.random.split(key)
            at += float(jax.random.normal(drawn))
        assert result.state["key"] == key
    assert result.state["n"] == 23 and result.state["at"] == pytest.approx(at, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"at": np.zeros(3, np.float32)}, r"'at' is float32\[3\], expected float32\[\]"),
        ({"at": 1}, r"'at' is int32\[\], expected float32\[\]"),
        ({"at": np.float64(1)}, r"'at' is float64\[\], expected float32\[\]"),
        ({"key": np.zeros(2, np.uint32)}, "'key' is unexpected"),
        ({"more": 1.0}, "'more' is unexpected"),
    ],
)
def test_another_state_is_refused_and_the_leaf_named(change, message):
    start = {"key": jax.random.key(9), "at": 0.25, "n": 3, **change}
    with pytest.raises(ValueError, match="`state` does not fit: " + message):
        fit(random_walk(), state=start)


def test_a_replaced_init_counts():
    trial = line_trial(0.05, steps=40)
    placed = np.array([3.0, -7.0, 11.0], np.float32)

    def init(key, batch):
        return trial.init(key, batch)._replace(weights=jnp.asarray(placed))

    result = fit(trial._replace(init=init), keep="last")
    w = placed.astype(np.float64)
    for x, y in zip(result.state.x[:20], result.state.y[:20]):
        w = w - 0.05 * 2 * x.T @ (x @ w - y) / 4
    np.testing.assert_allclose(result.state.weights, w, rtol=1e-4)


def test_no_examples_give_no_predictions_and_no_means():
    trial = line_trial(0.05)._replace(predict=lambda state, x, key=None: x[:, :2] * 3)
    x, y = dataset().train
    assert train.predict(trial, 0.0, x[:0]).shape == (0, 2)
    np.testing.assert_array_equal(train.predict(trial, 0.0, x, batch_size=3), x[:, :2] * 3)
    with pytest.raises(ValueError, match="`split` must hold at least one example, got none"):
        train.evaluate(trial, 0.0, (x[:0], y[:0]))
    assert nn.flatten(jnp.zeros((0, 3, 2))).shape == (0, 6)
    assert nn.flatten(jnp.zeros((3, 0, 2))).shape == (3, 0)


@pytest.mark.parametrize("method", ["newton", "newton_cg", "lbfgs", "bfgs"])
def test_solvers_of_no_parameters_have_converged(method):
    told = optim.minimize(lambda w: jnp.sum(w**2) + 7.0, jnp.zeros(0), method)
    assert (told.params.shape, told.value, told.status) == ((0,), 7, optim.CONVERGED)


def test_a_search_that_is_used_up_says_so():
    space = {"lr": sweep.choice(0.01, 0.05)}
    search, options = sweep.grid_search(space), {"steps": 5, "batch_size": 4, "progress": False}
    make = lambda hp: line_trial(hp["lr"])  # noqa: E731
    assert len(sweep.run(make, space, dataset(), search=search, **options).trials) == 2
    with pytest.raises(ValueError, match=r"search grid gave no configuration .* is empty"):
        sweep.run(make, space, dataset(), search=search, **options)
