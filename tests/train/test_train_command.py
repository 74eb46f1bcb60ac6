"""`jdl train` on text, as an autoencoder, stopping early, with an average beside."""

from __future__ import annotations

import re

import numpy as np
import pytest

from jdl import cli

LINES = b"the cat sat on the mat and the dog sat on the log and so on and on and on\n" * 200


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines.txt").write_bytes(LINES)
    return tmp_path


def run(*arguments, epochs="1"):
    return cli.main(["train", "--epochs", epochs, "--no-plot", "--out", "run", *arguments])


@pytest.mark.parametrize("model", ["lstm", pytest.param("transformer", marks=pytest.mark.slow)])
def test_text_in_perplexity_out(here, capsys, model):
    assert run("--data", "lines.txt", "--model", model, "--batch-size", "8", epochs="4") == 0
    shown = capsys.readouterr().out
    row = re.search(r"validation perplexity\s+([\d.]+)", shown)
    loss = re.search(r"validation loss\s+([\d.]+)", shown)
    assert float(row[1]) == pytest.approx(np.exp(float(loss[1])), rel=1e-2)
    assert float(row[1]) < 30  # of 256


def test_an_autoencoder_with_an_average(here, capsys):
    assert run("--model", "autoencoder", "--hidden", "16", "4", "--ema", "0.9") == 0
    shown = capsys.readouterr().out
    assert "validation ema loss" in shown and "accuracy" not in shown


def test_stops_early_and_writes_for_tensorboard(here, capsys):
    pytest.importorskip("tensorboardX")
    options = ["--model", "linear", "--lr", "0.9", "--patience", "2", "--devices", "2"]
    assert run(*options, "--tensorboard", "logs", epochs="30") == 0
    assert re.search(r"Stopped early after \d+ steps", capsys.readouterr().out)
    assert [*(here / "logs").iterdir()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--data lines.txt --model mlp", "mlp is not for text. .* one of transformer, lstm"),
        (
            "--model lstm",
            "lstm is for text. `--model` must be one of mlp, linear, vit, autoencoder",
        ),
        ("--data none.txt --model lstm", "none.txt: cannot be opened"),
        ("--patience 0", "`patience` must be an integer of at least 1, got patience=0"),
        ("--ema 1.5", r"`decay` must be in \[0, 1\], got decay=1.5"),
    ],
)
def test_what_is_refused(here, capsys, arguments, message):
    assert run(*arguments.split()) == 2
    assert re.search(message, capsys.readouterr().err)
