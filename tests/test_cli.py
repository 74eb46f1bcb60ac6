"""The command line, from arguments to exit code, tables and files."""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from jdl import cli, data, sweep, train
from jdl.cli import doctor, folder, summary, task
from jdl.cli.options import Task
from jdl.cli.sweep import Sweep
from jdl.engine import cache

SMALL = ["--hidden", "5", "--optimizers", "sgd", "momentum", "--lr", "1e-2", "1e6", "3"]
SMALL += ["--seeds", "2", "--epochs", "2", "--devices", "2"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep with its defaults but small, run twice in one folder: exit codes and outputs."""
    where = tmp_path_factory.mktemp("swept")
    before = os.getcwd()
    os.chdir(where)
    try:
        outputs = []
        for _ in range(2):
            with pytest.MonkeyPatch.context() as patch:
                lines = {"stdout": [], "stderr": []}
                for name in lines:
                    patch.setattr(sys, name, _Tee(lines[name]))
                code = cli.main(["sweep", *SMALL])
            outputs.append((code, "".join(lines["stdout"]), "".join(lines["stderr"])))
    finally:
        os.chdir(before)
    return where, outputs


class _Tee:
    encoding = "utf-8"

    def __init__(self, lines):
        self.lines = lines

    def write(self, text):
        self.lines.append(text)

    def flush(self):
        pass

    def isatty(self):
        return False


def run(arguments, capsys):
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_version(capsys):
    code, out, _ = run(["--version"], capsys)
    assert code == 0 and re.fullmatch(r"jdl \d+\.\d+\.\d+\S*\n", out)


def test_help_is_for_a_person_and_imports_no_command():
    script = (
        "import sys\n"
        "from jdl.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert not {'matplotlib', 'jdl.cli.task'} & {*sys.modules}, 'heavy'\n"
    )

    def help_of(*arguments):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    top = help_of()
    words = ("sweep", "train", "report", "doctor", "bench", "jdl --version")
    assert all(word in top for word in words)
    text = help_of("sweep", "--help")
    options = "data model hidden optimizers lr seeds space search trials stopping epochs batch-size"
    for option in f"{options} out devices lanes seed dropout l2 no-plot".split():
        assert f"--{option} " in text, option
    assert "LOW HIGH COUNT" in text and "720 networks" in text
    assert "None" not in text and "{" not in text.split("usage")[1].split("--space")[0]


def test_a_sweep_prints_the_best_of_each_and_saves_a_picture(swept):
    where, ((code, out, err), _) = swept
    assert code == 0
    (run_folder,) = (where / "runs").iterdir()
    assert run_folder.name.startswith("digits-mlp-")
    assert f"run:     runs/{run_folder.name}\n" in out
    assert f"picture: runs/{run_folder.name}/lr.png\n" in out
    assert (run_folder / "lr.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "12 trials: 2 optimizers x 3 rates x 2 seeds." in err
    assert "mlp with hidden 5 on digits (1,257 train, 180 valid, 360 test), 2 epochs" in err
    # The table against the store itself: mean and standard error over the two seeds.
    db = sqlite3.connect(run_folder / "run.sqlite")
    trials = [
        (json.loads(config), trial, status, json.loads(final or "{}"))
        for trial, config, status, final in db.execute(
            "SELECT trial, config, status, final FROM trials"
        )
    ]
    last = dict(db.execute("SELECT trial, valid_accuracy FROM reports ORDER BY step"))
    db.close()
    diverged = sum(status == "diverged" for _, _, status, _ in trials)
    assert diverged and f"12 trials: {12 - diverged} done, {diverged} diverged." in out
    for optimizer in ("sgd", "momentum"):
        by_rate: dict[float, list[tuple[float, float]]] = {}
        for config, trial, status, final in trials:
            if config["optimizer"] == optimizer and status == "done":
                by_rate.setdefault(config["lr"], []).append((last[trial], final["test_accuracy"]))
        rate, pairs = max(by_rate.items(), key=lambda item: np.mean([p[0] for p in item[1]]))
        (row,) = [line.split() for line in out.splitlines() if line.strip().startswith(optimizer)]
        (v0, t0), (v1, t1) = pairs
        expected = [f"{rate:.4g}"]
        for a, b in ((v0, v1), (t0, t1)):
            expected += [f"{(a + b) / 2:.4f}", "±", f"{abs(a - b) / 2:.4f}"]
        assert row[1:8] == expected
        assert row[8] == "2/2"


def test_the_same_command_again_shows_the_same_and_trains_nothing(swept):
    where, ((_, first, _), (code, again, err)) = swept
    assert code == 0 and len(list((where / "runs").iterdir())) == 1
    assert "12 of 12 trials had ended" in err

    def table(text):
        return text[: text.index("12 trials:")]

    assert table(again) == table(first)


def test_report(swept, monkeypatch, capsys):
    where, ((_, first, _), _) = swept
    monkeypatch.chdir(where)
    (run_folder,) = (where / "runs").iterdir()
    arguments = ["report", f"runs/{run_folder.name}", "--best", "2", "--out", "other.png"]
    code, out, _ = run(arguments, capsys)
    assert code == 0 and (where / "other.png").exists()
    assert first[: first.index("12 trials:")] in out  # the same table below the best trials
    assert "The best trials by validation accuracy" in out
    code, out, _ = run([*arguments[:2], "--metric", "valid_loss", "--no-plot"], capsys)
    assert code == 0 and "The best of each by validation loss" in out and "picture" not in out
    for extra, message in (
        (["--by", "rate"], "`--by` must be one of model, hidden, optimizer, lr, seed, got 'rate'"),
        (["--metric", "speed"], "`--metric` must be one of .*valid_accuracy.*, got 'speed'"),
    ):
        code, _, err = run([*arguments[:2], *extra], capsys)
        assert code == 2 and re.search(message, err)


def test_without_matplotlib_all_but_the_picture(swept, monkeypatch, capsys):
    where, _ = swept
    monkeypatch.chdir(where)
    (run_folder,) = (where / "runs").iterdir()
    for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = run(["report", f"runs/{run_folder.name}"], capsys)
    assert code == 0 and not err and "The best of each" in out
    assert "no picture: matplotlib is missing. pip install 'jdl[plot]', then jdl report" in out


def test_train_reports_and_refuses_another_rate_in_its_folder(here, capsys):
    arguments = ["train", "--model", "linear", "--epochs", "2", "--out", "one"]
    code, out, err = run([*arguments, "--lr", "0.01"], capsys)
    assert code == 0 and (here / "one" / "curves.png").exists()
    assert "linear on digits" in err and "adam at rate 0.01" in err
    results = sweep.read("one")
    accuracies = results.curves("valid_accuracy")[0]
    best = int(np.argmax(accuracies))
    row = next(line.split() for line in out.splitlines() if line.startswith(" validation acc"))
    assert row[2:] == [f"{accuracies[best]:.4g}", f"{accuracies[-1]:.4g}"]
    code, again, _ = run(["report", "one"], capsys)
    assert code == 0 and again == out
    code, _, err = run([*arguments, "--lr", "0.02"], capsys)
    assert code == 2 and "lr: 0.01 there, 0.02 now" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sweep --lr 0 1 3", r"`--lr` takes LOW HIGH COUNT with 0 < LOW < HIGH, got 0 1 3\."),
        ("sweep --lr -1 1 3", r"got -1 1 3\."),
        ("sweep --lr nan 1 3", r"got nan 1 3\."),
        ("sweep --lr 1 0.1 3", r"got 1 0\.1 3\. The bounds are reversed"),
        ("sweep --lr 0.1 1 0", r"`count` of `log_grid` must be an integer of at least 1, got 0"),
        ("sweep --optimizers adm", r"`optimizer` must be one of sgd, .*, got 'adm'"),
        ("sweep --model resnot", r"`model` must be one of mlp, linear, vit, .*, got 'resnot'"),
        ("sweep --model vit --hidden 3", r"The model vit takes no `hidden`; it takes patch"),
        ("sweep --hidden 0", r"`hidden` must be a size of at least 1.*got '0'"),
        ("sweep --activation rilu", r"`activation` must be one of relu, .*, got 'rilu'"),
        ("sweep --dropout 1.5", r"must be in \[0, 1\), got rate=1\.5"),
        ("sweep --l2 -1", r"`l2` must be in \[0, inf\), got l2=-1"),
        ("sweep --seeds 0", r"`--seeds` must be at least 1, got 0"),
        ("sweep --trials 0", r"`--trials` must be at least 1, got 0"),
        ("sweep --epochs 0", r"`--epochs` must be at least 1, got 0"),
        ("sweep --batch-size 5000", r"`batch_size` must be from 1 to .*1257, got .*5000"),
        ("sweep --data nothing", r"`--data` must be one of digits, mnist.*got 'nothing'"),
        ("sweep --data none.npz", r"none\.npz.*No such file"),
        ("sweep --data nan.npz", r"nan.npz: x\[.*\] is nan: every value must be finite"),
        (
            "sweep --data ages.csv --task classification",
            r"line 3, column 2 \(age\): the target is m",
        ),
        (
            "sweep --task regression",
            r"`--task` is of a \.csv file, got --task regression with 'dig",
        ),
        (
            "train --data some.txt --task regression",
            r"`--task` is of a \.csv file, got .*'some.txt'",
        ),
        ("sweep --space none.toml", r"No such file or directory: 'none\.toml'"),
        ("sweep --space empty_choice.toml", r"`lr`: `choice` needs at least one option"),
        ("sweep --space reversed.toml", r"`lr`: `log_uniform` needs low < high.*reversed"),
        ("sweep --space unknown.toml", r"`beta` is not a hyperparameter of .*sgd takes momentum"),
        ("sweep --space shape.toml", r"`hidden` changes the program, so it needs finitely many"),
        ("sweep --space seed.toml", r"`seed` must be written \{seeds = COUNT\}"),
        ("sweep --out file/run", r"The folder file/run cannot be written: Not a directory"),
        ("sweep --devices 99", r"`devices` must be from 1 to 8, the local devices, got 99"),
        ("sweep --search grid --trials 5", r"A grid tries every combination"),
        ("train --lr 0", r"`--lr` must be above 0 and finite, got 0"),
        ("train --lr -0.1", r"`--lr` must be above 0 and finite, got -0\.1"),
        ("train --optimizer adm", r"`optimizer` must be one of sgd, .*, got 'adm'"),
        ("report nowhere", r"nowhere holds no run: there is no run\.sqlite in it"),
    ],
)
def test_an_error_is_one_clean_paragraph_and_leaves_nothing(arguments, message, here, capsys):
    (here / "file").write_text("")
    (here / "ages.csv").write_text("size,age\n1.5,30\n2.5,NA\n")
    np.savez(here / "nan.npz", x=np.full((30, 2), np.nan), y=np.arange(30) % 2)
    for name, text in {
        "empty_choice": "lr = {choice = []}",
        "reversed": "lr = {log_uniform = [1.0, 0.1]}",
        "unknown": "beta = 0.5",
        "shape": "hidden = {uniform = [8, 64]}",
        "seed": "seed = 3",
    }.items():
        (here / f"{name}.toml").write_text(text)
    before = sorted(here.iterdir())
    code, out, err = run(arguments.split(), capsys)
    assert code == 2 and not out
    assert re.search(message, err), err
    assert "Traceback" not in err and "error: " in err
    assert sorted(p for p in here.rglob("*") if p.name != "runs") == before


def test_an_unknown_option_is_refused(capsys):
    with pytest.raises(SystemExit) as refused:
        cli.main(["sweep", "--rate", "3"])
    assert refused.value.code == 2
    assert "--rate" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(here, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise sweep.Interrupted("3 of 12 trials done. Run the same again to resume a b.", None)

    monkeypatch.setattr(sweep, "run", interrupted)
    code, _, err = run(["sweep", *SMALL, "--out", "a b"], capsys)
    assert code == 130
    assert err.endswith("trials done. Run the same again to resume a b.\n")
    assert err.count("resume") == 1

    def stopped(*arguments, **options):
        raise train.Interrupted("Stopped after 7 reports.", None)

    monkeypatch.setattr(train, "fit", stopped)
    code, _, err = run(["train", "--out", "c"], capsys)
    assert code == 130
    assert err.endswith("Stopped after 7 reports.\n")


def test_an_unexpected_error_is_not_hidden(here, monkeypatch, capsys):
    def broken(*arguments, **options):
        raise AssertionError("a defect")

    monkeypatch.setattr(sweep, "run", broken)
    with pytest.raises(AssertionError, match="a defect"):
        cli.main(["sweep", *SMALL])
    monkeypatch.setenv("JDL_DEBUG", "1")
    with pytest.raises(ValueError, match="LOW HIGH COUNT"):
        cli.main(["sweep", "--lr", "0", "1", "3"])


def test_what_decides_is_named_by_options(here, monkeypatch, capsys):
    taken = {}

    def noted(make_trial, space, dataset, **options):
        taken.update(options, space=space)
        raise ValueError("enough")

    monkeypatch.setattr(sweep, "run", noted)
    words = "sweep --search sobol --trials 9 --lanes tune --population pbt --stopping hyperband"
    code, _, err = run(words.split(), capsys)
    assert code == 2 and "9 trials: Sobol optimizer, lr; 4 seeds of each." in err
    assert taken["search"] == "sobol" and taken["lanes"] == "tune" and taken["trials"] == 9
    assert taken["space"]["lr"].kind == "log_uniform"
    assert taken["population"].name.startswith("pbt(")
    assert taken["stopping"].name.startswith("hyperband(")
    run(["sweep", "--lanes", "3"], capsys)
    assert taken["lanes"] == 3 and taken["population"] is taken["stopping"] is None


def test_the_default_folder_is_the_specifications_own(here, monkeypatch, capsys):
    asked = []

    def noted(*arguments, out, **options):
        asked.append(str(out))
        raise ValueError("enough")

    monkeypatch.setattr(sweep, "run", noted)
    np.savez("mine.npz", x=np.eye(80), y=np.arange(80) % 4)
    for extra in ([], [], ["--seed", "1"], ["--l2", "0.1"], ["--data", "mine.npz"]):
        assert cli.main(["sweep", *SMALL, *extra]) == 2
    np.savez("mine.npz", x=np.eye(80), y=(np.arange(80) + 1) % 4)
    assert cli.main(["sweep", *SMALL, "--data", "mine.npz"]) == 2
    same, again, *others = asked
    assert same == again and len({same, *others}) == 5
    assert all(re.fullmatch(r"runs/(digits|mine)-mlp-[0-9a-f]{6}", name) for name in asked)
    # A run that did not begin leaves no folder.
    assert not (here / same).exists()


def options(*, space=None, **changed):
    return Sweep(task=Task(**changed.pop("task", {})), space=space, **changed)


def space_of(file=None, drawn=False):
    given = options()
    return task.sweep_space(
        given.task,
        lr=given.lr,
        optimizers=given.optimizers,
        seeds=given.seeds,
        file=file,
        drawn=drawn,
    )


def test_a_space_file_adds_to_the_options(tmp_path):
    file = tmp_path / "space.toml"
    file.write_text(
        "hidden = {choice = [[64, 32], [8]]}\nlr = {log_uniform = [1e-3, 1.0]}\n"
        'label_smoothing = 0.1\noptimizer = {choice = ["adam", "adamw"]}\n'
        "b1 = {uniform = [0.5, 0.99]}\nseed = {seeds = 3}\n"
    )
    space = space_of(file, drawn=True)
    assert space["hidden"].points == ("64x32", "8") and space["hidden"].static
    assert space["lr"].kind == "log_uniform" and not space["b1"].static
    assert space["optimizer"].points == ("adam", "adamw") and len(space["seed"].points) == 3
    assert space["model"].points == ("mlp",) and space["label_smoothing"].points == (0.1,)
    # A random search draws rates from the whole range, a grid the rates themselves.
    assert space_of(drawn=True)["lr"].kind == "log_uniform"
    assert space_of()["lr"].points[0] == 1e-5
    assert len(space_of()["lr"].points) == 30


def test_a_trial_is_made_of_what_the_space_names():
    dataset = data.digits()
    hp = {"model": "mlp", "hidden": "7x3", "batch_norm": True, "optimizer": "adam", "lr": 0.1}
    hp |= {"b1": 0.5, "dropout": 0.2, "l2": 1e-3, "seed": 0}
    trial = task.trial_maker(dataset)(hp)
    import jax

    state = jax.eval_shape(trial.init, jax.random.key(0), dataset.train)
    kernels = [leaf.shape for leaf in jax.tree.leaves(state.params) if len(leaf.shape) == 2]
    assert kernels == [(64, 7), (7, 3), (3, 10)]


def test_targets_that_are_no_classes_make_a_regression():
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    dataset = data.from_arrays(x, x @ np.ones((3, 2), np.float32))
    assert task.trial_maker(dataset).keywords["outputs"] == task.Outputs(2, False, False, (3,))
    assert task.chance(dataset) is None


@pytest.mark.parametrize("given", [None, "regression", "classification"])
def test_the_task_of_a_csv_file(here, given, capsys):
    (here / "a.csv").write_text("size;kind\n" + "".join(f"{i}.5;{i % 3}\n" for i in range(30)))
    space = space_of()
    dataset = task.load(Task(data="a.csv", task=given, raw=True), space)
    outputs = task.trial_maker(dataset).keywords["outputs"]
    labelled = given != "regression"
    assert outputs == task.Outputs(3 if labelled else 1, labelled, False, (1,))
    assert ("told from its targets" in capsys.readouterr().err) == (given is None)


def test_a_space_file_of_windows(tmp_path):
    """With the byte-order mark that editors there put in front."""
    (tmp_path / "space.toml").write_bytes(b"\xef\xbb\xbflr = 0.1\r\nhidden = 3\r\n")
    space = space_of(tmp_path / "space.toml")
    assert space["lr"].points == (0.1,) and space["hidden"].points == ("3",)


def test_chance_is_the_share_of_the_commonest_class():
    x = np.zeros((6, 2), np.float32)
    labels = np.array([0, 1, 1, 2, 1, 0])
    assert task.chance(data.Dataset((x, labels))) == pytest.approx(3 / 6)
    held = data.Dataset((x, labels), (x[:4], labels[:4]), None)
    assert task.chance(held) == pytest.approx(2 / 4)


def test_a_note_is_kept_compared_and_taken_away(tmp_path):
    run_folder = tmp_path / "a" / "b"
    with folder.noted(run_folder, {"lr": 0.1}):
        assert folder.read_note(run_folder)["lr"] == 0.1
    assert not run_folder.exists()  # nothing came to run
    with folder.noted(run_folder, {"lr": 0.1}):
        (run_folder / "run.sqlite").write_text("")
    assert folder.read_note(run_folder)["lr"] == 0.1
    with (
        pytest.raises(sweep.StoreError, match=r"lr: 0\.1 there, 0\.2 now"),
        folder.noted(run_folder, {"lr": 0.2}, same=["lr"]),
    ):
        pass
    (run_folder / folder.NOTE).write_text("{broken")
    assert folder.read_note(run_folder) == {}


def test_the_note_of_a_command_killed_before_its_run_is_replaced(tmp_path):
    (tmp_path / folder.NOTE).write_text('{"lr": 0.1}')
    with folder.noted(tmp_path, {"lr": 0.2}, same=["lr"]):
        assert folder.read_note(tmp_path)["lr"] == 0.2


HEALTHY = doctor.Machine(
    versions={"jax": "0.10.2", "jaxlib": "0.10.2", "numpy": "2.4.0", "jdl": "0.1.0"},
    backend="cpu",
    devices=["cpu"] * 4,
    failure="",
    seconds=0.5,
    cores=4,
    cores_there=8,
    quota=math.inf,
    nvidia=False,
    environment={},
    switches=[],
    cache="2 compiled programs, 1.0 MiB, in /home/ann/.cache/jdl",
)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"nvidia": True}, r"NVIDIA GPU, but JAX computes on the CPU. pip install 'jax\[cuda13\]'"),
        (
            {"nvidia": True, "environment": {"JAX_PLATFORMS": "cpu"}},
            r"Unset JAX_PLATFORMS=cpu in the environment",
        ),
        (
            {"nvidia": True, "environment": {"CUDA_VISIBLE_DEVICES": ""}},
            r"CUDA_VISIBLE_DEVICES in the environment hides it",
        ),
        (
            {"nvidia": True, "versions": HEALTHY.versions | {"jax-cuda13-plugin": "0.10.2"}},
            r"jax-cuda13-plugin is installed but found no GPU. Is the driver new enough",
        ),
        (
            {"devices": ["cpu"], "environment": {"JAX_NUM_CPU_DEVICES": "1"}},
            r"1 CPU device for 4 cores.*Unset JAX_NUM_CPU_DEVICES",
        ),
        ({"quota": 1.5}, r"allows the time of 1\.5 cores, but shows 4\..*--devices 2"),
        ({"versions": {"jax": "0.10.2", "jaxlib": "0.11.0"}}, r"jax 0\.10\.2 and jaxlib 0\.11\.0"),
        ({"failure": "RuntimeError: no backend", "backend": ""}, r"does not work here.*no backend"),
        ({"switches": ["jax_disable_jit"]}, r"jax_disable_jit is on"),
    ],
)
def test_the_doctor_names_what_is_wrong_and_what_to_do(changed, message):
    assert doctor.problems(HEALTHY) == []
    found = doctor.problems(HEALTHY._replace(**changed))
    assert len(found) == 1 and re.search(message, found[0]), found


def test_a_gpu_that_is_used_is_no_problem():
    gpu = HEALTHY._replace(backend="gpu", devices=["NVIDIA H100 (75 GiB)"], nvidia=True)
    assert doctor.problems(gpu) == []
    assert doctor.facts(gpu)["devices"] == "1 x NVIDIA H100 (75 GiB)"


def test_doctor_shows_this_machine(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "has_nvidia", lambda: False)
    monkeypatch.setattr(doctor, "_quota", lambda: math.inf)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    code, out, _ = run(["doctor"], capsys)
    assert code == 0 and "Nothing is wrong" in out
    assert f"cache        {cache.size()[0]} compiled program" in out
    monkeypatch.setenv("JDL_CACHE_DIR", "")
    assert "cache        off, because JDL_CACHE_DIR is empty" in run(["doctor"], capsys)[1]
    monkeypatch.setenv("JDL_CACHE_DIR", str(tmp_path))
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "a.program").write_bytes(b"0" * 3072)
    _, out, _ = run(["doctor"], capsys)
    assert f"cache        1 compiled program, 3 KiB, in {tmp_path}" in out
    assert re.search(r"backend +cpu\n", out) and re.search(r"devices +8 x cpu\n", out)
    assert re.search(r"check +every device computes", out)


@pytest.mark.slow
def test_the_main_job(here, capsys):
    code, out, _ = run(["sweep"], capsys)
    assert code == 0 and "720 trials" in out
    (run_folder,) = (here / "runs").iterdir()
    results = sweep.read(run_folder)
    assert results.programs == 6 and results.count("done") + results.count("diverged") == 720
    assert max(s.mean for s in results.configurations("test_accuracy")) >= 0.96


@pytest.mark.parametrize(
    ("compilations", "found", "said"),
    [
        (1, 0, "1 program compiled"),
        (6, 0, "6 programs compiled"),
        (0, 6, "0 programs compiled, 6 found in the cache"),
        (1, 1, "1 program compiled, 1 found in the cache"),
    ],
)
def test_programs_that_were_compiled_and_found(compilations, found, said):
    assert summary._programs({"compilations": compilations, "found": found}) == said


def test_parts_are_merged_into_the_whole(here, capsys):
    for k in (1, 2, 3):
        given = ["sweep", *SMALL, "--lanes", "2", "--part", f"{k}/3", "--out", f"p{k}", "--no-plot"]
        assert cli.main(given) == 0
    assert cli.main(["sweep", *SMALL, "--lanes", "2", "--out", "whole", "--no-plot"]) == 0
    capsys.readouterr()
    assert cli.main(["merge", "p1", "p3", "--out", "all", "--no-plot"]) == 2
    assert "error: Part 2 of 3 missing." in capsys.readouterr().err
    assert not os.path.exists("all")
    assert cli.main(["merge", "p3", "p1", "p2", "--out", "all", "--no-plot"]) == 0
    assert "12 trials" in capsys.readouterr().out
    one, other = sweep.read("whole"), sweep.read("all")
    np.testing.assert_equal(one.columns(), other.columns())
    assert folder.read_note(here / "all")["data"] == "digits"
    assert cli.main(["sweep", *SMALL, "--part", "3 of 4"]) == 2
    assert "must be as 3/16: part 3 of 16, got --part 3 of 4" in capsys.readouterr().err


@pytest.mark.slow
def test_a_job_array_of_eight_processes_with_one_that_is_missing_at_first(here):
    command = [sys.executable, "-c", "from jdl.cli import main; raise SystemExit(main())"]
    small = ["sweep", *SMALL, "--seeds", "8", "--lanes", "2", "--no-plot"]

    def array(*numbers):
        parts = {
            k: subprocess.Popen([*command, *small, "--part", f"{k}/8", "--out", f"p{k}"])
            for k in numbers
        }
        return [part.wait() for part in parts.values()]

    assert array(1, 2, 4) + array(5, 6, 7) + array(8) == [0] * 7
    folders = [f"p{k}" for k in range(1, 9)]
    with pytest.raises(sweep.StoreError, match="p3 holds no run"):
        sweep.merge(folders, "all")
    with pytest.raises(sweep.StoreError, match="Part 3 of 8 missing"):
        sweep.merge([name for name in folders if name != "p3"], "all")
    assert array(3) == [0] and subprocess.call([*command, *small, "--out", "whole"]) == 0
    merged = sweep.merge([*folders, "p3"], "all")
    np.testing.assert_equal(merged.columns(), sweep.read("whole").columns())
