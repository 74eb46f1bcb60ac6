"""`jdl check`: what it prints, its exit code, its JSON and its picture."""

import json
import textwrap

import pytest

from jdl import cli


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_sound_model_is_fine(here, capsys):
    code = cli.main(["check", "--hidden", "16"])
    out, err = capsys.readouterr()
    assert code == 0, out
    assert "15 of 15 checks are fine" in out and "picture: check.png" in out
    assert (here / "check.png").read_bytes().startswith(b"\x89PNG")
    assert "learning_rate_range" in err  # progress


def test_your_own_trial_with_a_fault_exits_1(here, capsys):
    (here / "mine_to_check.py").write_text(
        textwrap.dedent("""
        from jdl import nn, optim, train

        def make(hp):
            model = nn.chain(nn.dense(8, kernel_init=nn.initializer.zeros), nn.relu,
                             nn.dense(10, kernel_init=nn.initializer.zeros))
            return train.classifier(model, optim.adam(hp["lr"]))

        def number():
            return 3

        def greedy(hp):
            return hp["depth"]
        """)
    )
    code = cli.main(["check", "--trial", "mine_to_check:make", "--json", "--no-plot"])
    report = json.loads(capsys.readouterr().out)
    assert code == 1 and report["verdict"] == "wrong"
    assert (report["problems"][0]["check"], report["problems"][0]["kind"]) == (
        "symmetry",
        "equal_units",
    )
    assert "0/kernel" in report["problems"][0]["advice"]
    assert {f["check"] for f in report["findings"]} >= {"data_report", "key_reuse", "read_curve"}
    assert not (here / "check.png").exists()
    for name, message in (
        ("mine_to_check:number", "must return a jdl.train.Trial, got int"),
        ("mine_to_check:greedy", "asks for 'depth'"),
        ("mine_to_check:nothing", "has no attribute 'nothing'"),
        ("mine_to_check", "must be package.module:function"),
    ):
        assert cli.main(["check", "--trial", name]) == 2
        assert message in capsys.readouterr().err


def test_a_rate_of_nothing_is_refused(here, capsys):
    assert cli.main(["check", "--lr", "0"]) == 2
    assert "`--lr` must be above 0" in capsys.readouterr().err
