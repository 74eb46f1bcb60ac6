"""Data-parallel training: eight simulated devices give what one gives, batch norm included."""

from __future__ import annotations

import os
import signal

import jax
import numpy as np
import pytest

from jdl import data, nn, optim, train
from jdl.data import Dataset
from jdl.engine.contract import trace_shapes
from jdl.engine.workload import make_workload
from jdl.train.layout import make_layout
from jdl.train.programs import make_programs

DIGITS = data.digits(image=True)
FEW = Dataset(*((x[:320], y[:320]) for x, y in DIGITS))


def trial(hidden=32):
    model = nn.chain(
        nn.conv(8, 3),
        nn.batch_norm(),
        nn.relu,
        nn.max_pool(2),
        nn.flatten,
        nn.dense(hidden),
        nn.batch_norm(),
        nn.relu,
        nn.dropout(0.2),
        nn.dense(10),
    )
    # Adam would make whole steps of the rounding in gradients that are 0, as those before a norm.
    return train.classifier(model, optim.momentum(0.05, 0.8))


def fit(**options):
    hidden = options.pop("hidden", 32)
    return train.fit(
        trial(hidden), FEW, epochs=2, batch_size=64, keep="last", progress=False, **options
    )


@pytest.fixture(scope="module")
def alone():
    return fit()


@pytest.mark.parametrize(
    "resident", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["resident", "streamed"]
)
def test_eight_devices_equal_one(alone, resident):
    spread = fit(devices=8, resident=resident)
    assert alone.steps.tolist() == [5, 10]
    for name, curve in alone.curves.items():
        np.testing.assert_allclose(curve, spread.curves[name], rtol=2e-5, err_msg=name)
    # The running statistics are of whole batches of 64, not of eight parts of 8.
    for a, b in zip(jax.tree.leaves(alone.state), jax.tree.leaves(spread.state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert alone.metrics["test_loss"] == pytest.approx(spread.metrics["test_loss"], rel=1e-5)


def test_batch_norm_over_the_whole_batch():
    """Eight devices, on each of which the examples are alike: a part's own variance would be 0."""
    x = np.repeat(np.arange(8.0, dtype=np.float32), 4)[:, None]
    model = nn.chain(nn.batch_norm(momentum=1.0))
    one = train.regressor(model, optim.sgd(1e-6))
    split = (x, x)
    result = train.fit(one, (split, None, None), steps=1, batch_size=32, devices=8, progress=False)
    (statistics,) = result.state.model_state
    np.testing.assert_allclose(statistics["mean"], [3.5], rtol=1e-6)
    np.testing.assert_allclose(statistics["var"], [np.var(x, ddof=1)], rtol=1e-5)


def work():
    return make_workload(
        lambda numbers: trial(512),
        data=FEW,
        epochs=1,
        steps=None,
        batch_size=64,
        report_every=None,
        eval_batch_size=64,
        diverged_above=1e6,
    )


def test_large_arrays_are_split_and_the_devices_talk():
    workload = work()
    shapes = trace_shapes(workload, {})
    programs = make_programs(workload, shapes, make_layout(8, True, 64))
    lane = programs.start(np.uint32(0))
    kernel = lane.state.params[5]["kernel"]
    assert kernel.shape == (128, 512) and kernel.sharding.spec == jax.P(None, "batch")
    assert kernel.addressable_shards[0].data.shape == (128, 64)
    assert lane.state.params[0]["kernel"].sharding.is_fully_replicated
    moments = [a for a in jax.tree.leaves(lane.state.opt_state) if a.shape == (128, 512)]
    assert len(moments) == 1 and not any(m.sharding.is_fully_replicated for m in moments)
    text = programs.resident.__wrapped__.lower(lane, np.uint32(0), FEW.train).compile().as_text()
    assert "all-reduce" in text and "all-gather" in text


def test_split_parameters_train_the_same(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    plain, split = fit(hidden=512), fit(hidden=512, devices=8, split_state=True)
    for name, curve in plain.curves.items():
        np.testing.assert_allclose(curve, split.curves[name], rtol=2e-5, err_msg=name)
    kernel = split.state.params[5]["kernel"]
    assert not kernel.sharding.is_fully_replicated
    train.save_sharded(tmp_path / "state", split.state)
    back = train.load_sharded(tmp_path / "state", split.state)
    assert back.params[5]["kernel"].sharding == kernel.sharding
    jax.tree.map(np.testing.assert_array_equal, back, split.state)
    # Onto one device.
    like = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(
            a.shape, a.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[1])
        ),
        split.state,
    )
    moved = train.load_sharded(tmp_path / "state", like)
    assert moved.params[5]["kernel"].devices() == {jax.devices()[1]}
    jax.tree.map(np.testing.assert_array_equal, moved, split.state)
    with pytest.raises(FileNotFoundError, match="no folder of a sharded checkpoint"):
        train.load_sharded(tmp_path / "none", like)
    with pytest.raises(train.CheckpointError, match="does not fit"):
        train.load_sharded(tmp_path / "state", {"other": like.params})


@pytest.mark.slow
def test_several_devices_resume(tmp_path):
    def interrupt(report):
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(train.Interrupted):
        fit(devices=8, out=tmp_path / "run", callbacks=[interrupt])
    parts, whole = fit(devices=8, out=tmp_path / "run"), fit(devices=8)
    jax.tree.map(np.testing.assert_array_equal, parts.state, whole.state)
