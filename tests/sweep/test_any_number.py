"""Any number may be swept, and may exist for some choices only: in one program each."""

from __future__ import annotations

import numpy as np

from jdl import data, nn, optim, sweep, train
from jdl.data import augment

BASE = {
    "peak": 0.3,
    "share": 0.1,
    "decay": 20.0,
    "dropout": 0.2,
    "smoothing": 0.1,
    "noise": 0.3,
    "scale": 0.5,
    "bn": 0.2,
}
OTHER = {
    "peak": 0.1,
    "share": 0.5,
    "decay": 8.0,
    "dropout": 0.4,
    "smoothing": 0.3,
    "noise": 0.6,
    "scale": 1.0,
    "bn": 0.6,
}


def small():
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int32) + (x[:, 1] > 0)
    return data.Dataset((x[:40], y[:40]), (x[40:], y[40:]))


def make_trial(hp):
    model = nn.chain(
        nn.dense(8, kernel_init=nn.initializer.normal(hp["scale"])),
        nn.batch_norm(momentum=hp["bn"]),
        nn.relu,
        nn.dropout(hp["dropout"]),
        nn.dense(3),
    )
    rate = optim.cosine_decay_schedule(hp["peak"], hp["decay"], hp["share"])
    return train.classifier(
        model,
        optim.sgd(rate),
        label_smoothing=hp["smoothing"],
        augment=augment.noise(hp["noise"]),
    )


def test_every_number_is_swept_in_one_program_and_changes_what_comes_of_it():
    """Trial 0 is the base, each other differs from it in one number alone."""
    configs = [BASE | {"seed": 0}] + [{**BASE, name: OTHER[name], "seed": 0} for name in BASE]
    space = {name: sweep.choice(BASE[name], OTHER[name]) for name in BASE}
    given = iter([configs])
    search = sweep.Search(lambda n: next(given, []), lambda c, s: None, "one at a time")
    results = sweep.run(
        make_trial,
        {**space, "seed": sweep.seeds(1)},
        small(),
        search=search,
        steps=16,
        batch_size=10,
        report_every=8,
        lanes=5,
        devices=2,
        progress=False,
    )
    assert results.programs == 1 and results.count("done") == 9
    loss = results.curves("valid_loss")[:, -1]
    for row, name in enumerate(BASE, start=1):
        assert abs(loss[row] - loss[0]) > 1e-5, name


def test_conditional_numbers_are_swept_with_the_programs_that_have_them():
    def make(hp):
        taken = {"momentum": hp["mu"]} if hp["optimizer"] != "sgd" else {}
        assert ("mu" in hp) == (hp["optimizer"] != "sgd")
        optimizer = optim.by_name(hp["optimizer"])(hp["lr"], **taken)
        return train.classifier(nn.chain(nn.dense(3)), optimizer)

    space = {
        "optimizer": sweep.choice("sgd", "momentum"),
        "lr": sweep.log_uniform(0.01, 1.0),
        "mu": sweep.when("optimizer", "momentum", sweep.uniform(0.1, 0.9)),
    }
    results = sweep.run(
        make, space, small(), trials=12, search="sobol", steps=4, lanes=2, progress=False
    )
    assert results.programs == 2 and results.count("done") == 12
    columns = results.columns()
    absent = [value is None for value in columns["mu"]]
    assert absent == [name == "sgd" for name in columns["optimizer"]] and 0 < sum(absent) < 12
    assert {len(s.config) for s in results.configurations()} == {2, 3}
    results.plot("mu")
