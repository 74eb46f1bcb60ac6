"""Every form of data trains: lists, trees of arrays, bfloat16, maps; in a fit, a sweep, a fold."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from tests.data.formats import idx_bytes

from jdl import data, sweep, train

IMAGE, META = np.random.default_rng(0).normal(size=(8, 4, 3)), np.arange(16).reshape(8, 2) / 16
FORMS = {
    "dict": {"image": IMAGE, "meta": META},
    "tuple": (IMAGE, META),
    "dict of lists": {"image": IMAGE.tolist(), "meta": META.tolist()},
    "dict of dicts": {"a": {"image": IMAGE}, "b": META},
    "big-endian": {"image": IMAGE.astype(">f8"), "meta": META.astype(">f4")},
}
ARRAYS = {
    "list": META.tolist(),
    "bfloat16": META.astype(ml_dtypes.bfloat16),  # which holds these numbers exactly
    "big-endian": META.astype(">f8"),
    "int64": (16 * META).astype(np.int64),
}
Y = np.arange(8.0)


def trial():
    """Least squares on all numbers of an example, whatever tree they come in."""

    def flat(x):
        return jnp.concatenate(
            [a.reshape(len(a), -1).astype(jnp.float32) for a in jax.tree.leaves(x)], 1
        )

    def loss(w, batch):
        x = flat(batch[0])
        return jnp.mean((x @ w[: x.shape[1]] - batch[1].astype(jnp.float32)) ** 2)

    def step(w, batch, key):
        value, grads = jax.value_and_grad(loss)(w, batch)
        return w - 0.01 * grads, {"loss": value}

    return train.Trial(
        lambda key, batch: jnp.zeros(14), step, lambda w, batch: {"loss": loss(w, batch)}
    )


def losses(x, y):
    """Of a fit on resident and on streamed data, and of a sweep."""
    splits, options = ((x, y), (x, y), None), {"epochs": 2, "batch_size": 4, "progress": False}
    for resident in (True, False):
        yield train.fit(trial(), splits, resident=resident, **options).metrics["valid_loss"]
    space = {"seed": sweep.seeds(1)}
    yield sweep.run(lambda hp: trial(), space, splits, lanes=1, devices=1, **options).curves(
        "valid_loss"
    )[0, -1]


@pytest.mark.parametrize("form", FORMS)
def test_trees_train(form):
    plain = np.concatenate([IMAGE.reshape(8, -1), META], 1).astype("f4")
    expected = [*losses(plain, Y.astype("f4"))]
    for y in (Y, Y.tolist()):
        np.testing.assert_allclose([*losses(FORMS[form], y)], expected, rtol=1e-5)


@pytest.mark.parametrize("form", ARRAYS)
def test_arrays_train(form):
    scale = 16 if form == "int64" else 1
    expected = [*losses((scale * META).astype("f4"), Y.astype("f4"))]
    np.testing.assert_allclose([*losses(ARRAYS[form], Y)], expected, rtol=1e-5)


def test_maps_train(tmp_path):
    for name, array in (("x", META), ("y", Y)):
        (tmp_path / name).write_bytes(idx_bytes(array, ">f8"))
    mapped = [data.idx(tmp_path / name, mmap=True) for name in "xy"]
    np.testing.assert_allclose([*losses(*mapped)], [*losses(META, Y)], rtol=1e-6)


def test_folds_of_trees():
    options = {"folds": 4, "epochs": 2, "batch_size": 2, "progress": False, "lanes": 1}
    space = {"a": sweep.choice(0.1, 0.2)}
    found = [
        sweep.cross_validate(lambda hp: trial(), space, ((x, Y), None, None), devices=1, **options)
        for x in (FORMS["dict"], FORMS["dict of lists"])
    ]
    a, b = (results.curves("valid_loss") for results in found)
    np.testing.assert_array_equal(a, b)


def test_nested_values_come_back_as_they_were(tmp_path):
    space = {"a": sweep.choice((1, (2, 3)), ("x", (True, ()))), "seed": sweep.seeds(1)}
    splits = ((META, Y), (META, Y), None)
    results = sweep.run(
        lambda hp: trial(),
        space,
        splits,
        epochs=1,
        batch_size=4,
        progress=False,
        out=tmp_path / "r",
    )
    configs = [one.config["a"] for one in (*results.trials, *sweep.read(tmp_path / "r").trials)]
    assert repr(configs) == repr([(1, (2, 3)), ("x", (True, ()))] * 2)
