"""A leading "~" means the home folder, wherever a path is taken."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.engine.toys import dataset, line_trial
from tests.made_up import made_up

from jdl import cli, sweep, train
from jdl.cli.check import Check
from jdl.cli.report import Report
from jdl.cli.sweep import Sweep
from jdl.cli.train import Train
from jdl.plot import write_report


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home folder; a folder called "~" elsewhere is a mistake."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "home"
    assert not [*(tmp_path / "here").iterdir()]


COMMANDS = {
    Sweep: ["sweep", "--space", "~/s.toml", "--out=~/a b"],
    Train: ["train", "--out", "~/a b", "--tensorboard=~/t"],
    Check: ["check", "--out=~/p.png"],
    Report: ["report", "~/run", "--out=~/p.png", "--optuna", "~/o.db", "--tensorboard=~/t"],
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_path_of_a_command(command, home, monkeypatch):
    taken = []
    monkeypatch.setattr(command, "run", lambda self: taken.append(self) or 0)
    assert cli.main(COMMANDS[command]) == 0
    given = [a.rpartition("~")[2] for a in COMMANDS[command] if "~" in a]
    paths = [str(v) for v in vars(taken[0]).values() if str(v).startswith(str(home))]
    assert sorted(paths) == sorted(f"{home}{path}" for path in given)


def test_a_run(home):
    options = {"epochs": 1, "batch_size": 4, "devices": 1, "progress": False}
    space = {"lr": sweep.log_grid(0.01, 0.1, 2)}
    sweep.run(lambda hp: line_trial(hp["lr"]), space, dataset(), out="~/run", **options)
    assert (home / "run" / "run.sqlite").exists()
    assert len(sweep.read("~/run").trials) == 2
    again = sweep.run(lambda hp: line_trial(hp["lr"]), space, dataset(), out="~/run", **options)
    assert again.complete
    train.fit(line_trial(0.1), dataset(), out="~/fit", **options)
    assert (home / "fit" / "run.sqlite").exists()


def test_pictures(home):
    pytest.importorskip("matplotlib")
    results = made_up(12)
    results.plot("lr", path="~/lr.png")
    assert (home / "lr.png").exists()
    files = write_report(results, "~/report")
    assert files[0] == home / "report" / "report.html" and files[0].exists()


def test_a_study(home):
    pytest.importorskip("optuna")
    made_up(12).to_optuna("~/study.db")
    assert (home / "study.db").exists()


def test_tensorboard(home):
    pytest.importorskip("tensorboardX")
    made_up(12).to_tensorboard("~/trials", 1)
    train.tensorboard("~/run")
    assert (home / "trials").is_dir() and (home / "run").is_dir()


def test_an_exported_network(home):
    pytest.importorskip("flatbuffers")
    trial = line_trial(0.1)._replace(predict=lambda state, x: x @ state["w"])
    x = jnp.ones((4, 3))
    train.export("~/network", trial, {"w": np.ones(3, np.float32)}, x)
    assert (home / "network").exists()
    np.testing.assert_array_equal(train.load_exported("~/network")(x), [3, 3, 3, 3])


def test_a_sharded_checkpoint(home):
    pytest.importorskip("orbax.checkpoint")
    arrays = {"w": jax.device_put(jnp.arange(3.0))}
    train.save_sharded("~/sharded", arrays)
    assert (home / "sharded").is_dir()
    np.testing.assert_array_equal(train.load_sharded("~/sharded", arrays)["w"], [0, 1, 2])
