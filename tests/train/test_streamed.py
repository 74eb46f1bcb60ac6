"""Streams in `fit`: the batches of resident data, every kind of source, resumed to the bit."""

from __future__ import annotations

import os
import signal

import jax
import numpy as np
import pytest
from tests.engine.toys import dataset, line_trial

from jdl import data, train

X, Y = dataset().train
REST = dataset()[1:]
OPTIONS = {"progress": False, "batch_size": 4}


def run(source, *, per_epoch=5, epochs=8, steps=40, **options):
    stream = data.Stream(source, per_epoch)
    return train.fit(
        line_trial(0.02, steps=steps), (stream, *REST), epochs=epochs, **OPTIONS, **options
    )


def interrupt_at(step):
    def callback(report):
        if report.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return callback


def assert_same(whole, parts):
    np.testing.assert_array_equal(whole.state.x, parts.state.x)
    np.testing.assert_array_equal(whole.state.weights, parts.state.weights)
    for name, curve in whole.curves.items():
        np.testing.assert_array_equal(curve, parts.curves[name])


def shuffled(step):
    """A source that knows its position: the order of an epoch depends on its number alone."""
    while True:
        order = np.random.default_rng(step // 5).permutation(20)
        at = 4 * (step % 5)
        yield X[order[at : at + 4]], Y[order[at : at + 4]]
        step += 1


class Stateful:
    """Endless batches with a state, as a Grain iterator has."""

    def __init__(self, as_bytes):
        self.as_bytes, self.asked = as_bytes, 0

    def __iter__(self):
        return StatefulIterator(self)


class StatefulIterator:
    def __init__(self, owner):
        self.owner, self.step = owner, 0

    def __iter__(self):
        return self

    def __next__(self):
        self.step += 1
        self.owner.asked += 1
        return next(shuffled(self.step - 1))

    def get_state(self):
        return str(self.step).encode() if self.owner.as_bytes else {"step": self.step}

    def set_state(self, state):
        self.step = int(state) if self.owner.as_bytes else state["step"]


class Loader:
    """Five batches an iteration and a smaller one, in lists, as a PyTorch loader gives."""

    def __iter__(self):
        for at in range(0, 20, 4):
            yield [X[at : at + 4], Y[at : at + 4]]
        yield [X[:2], Y[:2]]


def test_streamed_batches_are_those_of_resident_data(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = data.Dataset((data.npy(tmp_path / "x.npy", mmap=True), Y), *REST)
    options = {"epochs": 8, "report_every": 4, **OPTIONS}
    resident = train.fit(line_trial(0.02, steps=40), dataset(), **options)
    streamed = train.fit(line_trial(0.02, steps=40), mapped, resident=False, **options)
    np.testing.assert_array_equal(resident.state.x, streamed.state.x)
    np.testing.assert_array_equal(resident.state.masks, streamed.state.masks)
    np.testing.assert_allclose(resident.state.weights, streamed.state.weights, rtol=1e-5)
    for name, curve in resident.curves.items():
        np.testing.assert_allclose(curve, streamed.curves[name], rtol=1e-5)


@pytest.mark.parametrize(
    "source", [shuffled, Stateful(True), Stateful(False), Loader()], ids=lambda s: type(s).__name__
)
def test_resumes_to_the_bit(tmp_path, source):
    whole = run(source)
    wanted = [batch[0] for batch, _ in zip(shuffled(0), range(40))]
    if not isinstance(source, Loader):
        np.testing.assert_array_equal(whole.state.x, wanted)
    with pytest.raises(train.Interrupted):
        run(source, out=tmp_path / "run", callbacks=[interrupt_at(15)])
    if isinstance(source, Stateful):
        source.asked = 0
    assert_same(whole, run(source, out=tmp_path / "run"))
    if isinstance(source, Stateful):
        # Taken up by its state: what was trained on is not read again, but for the first look.
        assert source.asked <= 25 + 1


def test_resident_data_streamed_resume_to_the_bit(tmp_path):
    def again(folder, *callbacks):
        return train.fit(
            line_trial(0.02, steps=40),
            dataset(),
            epochs=8,
            resident=False,
            out=tmp_path / folder,
            callbacks=callbacks,
            **OPTIONS,
        )

    whole = again("whole")
    with pytest.raises(train.Interrupted):
        again("parts", interrupt_at(20))
    assert_same(whole, again("parts"))


def test_chunks_end_where_a_report_does():
    """13 steps between reports are no multiple of a chunk; the means are over all 13."""
    whole = train.fit(
        line_trial(0.02, steps=39), dataset(), steps=39, report_every=13, resident=False, **OPTIONS
    )
    plain = train.fit(line_trial(0.02, steps=39), dataset(), steps=39, report_every=13, **OPTIONS)
    np.testing.assert_allclose(whole.curves["train_loss"], plain.curves["train_loss"], rtol=1e-5)
    assert list(whole.steps) == [13, 26, 39]


def test_steps_of_an_endless_stream():
    stream = data.Stream(shuffled)
    result = train.fit(
        line_trial(0.02, steps=6), (stream, None, None), steps=6, report_every=3, **OPTIONS
    )
    assert list(result.steps) == [3, 6] and list(result.curves) == ["train_loss"]


def once():
    return (batch for batch, _ in zip(shuffled(0), range(8)))


def unequal(step):
    yield X[:4], Y[:4]
    yield X[:4, :2], Y[:4]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (shuffled, {"per_epoch": None}, r"Stream\(source, steps_per_epoch=...\); or give `steps`"),
        (lambda step: iter([(X, Y)]), {}, r"for step 0 has \[20\] examples: expected batch_size=4"),
        (lambda step: iter([]), {}, "no batch for step 0: it ended"),
        (once(), {}, "It ended|it ended and gave no more when it was iterated again"),
        (unequal, {}, r"step 1 has an array of shape \(4, 2\): expected \(4, 3\), as before"),
        (lambda step: iter([X[:4]] * 99), {}, r"must be pairs \(x, y\), got ndarray"),
        (lambda step: iter([(X[:4] * np.nan, Y[:4])]), {}, "x.*nan"),
    ],
)
def test_streams_that_will_not_do(source, options, message):
    with pytest.raises(ValueError, match=message):
        run(source, **options)


def test_a_state_that_cannot_be_written(tmp_path):
    class Odd(Stateful):
        def __iter__(self):
            iterator = super().__iter__()
            iterator.get_state = lambda: {"step": object()}
            return iterator

    with pytest.raises(data.DataError, match="must be bytes or JSON"):
        run(Odd(False), out=tmp_path / "run")


def test_grain(tmp_path):
    grain = pytest.importorskip("grain.python")
    with pytest.MonkeyPatch.context():
        dataset = grain.MapDataset.source(list(zip(X, Y))).seed(3).shuffle().repeat(None).batch(4)
        source = dataset.to_iter_dataset(grain.ReadOptions(num_threads=0))
        whole = run(source)
        with pytest.raises(train.Interrupted):
            run(source, out=tmp_path / "run", callbacks=[interrupt_at(15)])
        parts = run(source, out=tmp_path / "run")
    assert_same(whole, parts)
    assert sorted(map(tuple, np.asarray(whole.state.x[:5]).reshape(20, 3))) == sorted(map(tuple, X))


class Tensor:
    """As much of a torch tensor as NumPy asks for."""

    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return np.array(self._array, dtype)

    @property
    def shape(self):
        return self._array.shape


class Positioned:
    """A loader as PyTorch's: a length, and an order of its own every time it is gone through."""

    def __init__(self, seed=5):
        self._random = np.random.default_rng(seed)

    def __len__(self):
        return 5

    def __iter__(self):
        order = self._random.permutation(20)
        for start in range(0, 20, 4):
            yield [Tensor(a[order[start : start + 4]]) for a in (X, Y)]


def test_a_loader_with_the_interface_of_torch(tmp_path):
    whole = run(Positioned())
    with pytest.raises(train.Interrupted):
        run(Positioned(), out=tmp_path / "run", callbacks=[interrupt_at(15)])
    assert_same(whole, run(Positioned(), out=tmp_path / "run"))
    epochs = np.asarray(whole.state.x).reshape(8, 20, 3)
    assert not np.array_equal(epochs[0], epochs[1])
    assert all(sorted(map(tuple, epoch)) == sorted(map(tuple, X)) for epoch in epochs)


@pytest.mark.slow
def test_a_torch_loader(tmp_path):
    torch = pytest.importorskip("torch")
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))

    def loader():
        generator = torch.Generator().manual_seed(5)
        return torch.utils.data.DataLoader(pairs, 4, shuffle=True, generator=generator)

    whole = run(loader())
    with pytest.raises(train.Interrupted):
        run(loader(), out=tmp_path / "run", callbacks=[interrupt_at(15)])
    assert_same(whole, run(loader(), out=tmp_path / "run"))
    # Every epoch in an order of its own.
    epochs = np.asarray(whole.state.x).reshape(8, 20, 3)
    assert not np.array_equal(epochs[0], epochs[1])
    assert jax.tree.leaves(whole.state)[0].shape == (3,)
