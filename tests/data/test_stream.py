"""Streaming: the batches of resident data, from a thread that runs ahead, fails, ends cleanly."""

import gc
import threading
import time
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.aligned import aligned

from jdl import data

KEY = jax.random.key(6)


def running():
    return [t for t in threading.enumerate() if t.name == "jdl-prefetch" and t.is_alive()]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    deadline = time.monotonic() + 2
    while running() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not running()


def wait_for(condition):
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def test_batches_are_those_of_the_compiled_program(tmp_path):
    x, y = np.arange(66.0).reshape(33, 2), np.arange(33)
    np.save(tmp_path / "x.npy", x)
    mapped = data.npy(tmp_path / "x.npy", mmap=True)
    expected = np.asarray(data.batch_indices(KEY, 0, 150, 4, 33))
    streamed = list(data.batches((mapped, y), KEY, 4, stop=150))
    assert len(streamed) == 150 and type(streamed[0][0]) is np.ndarray
    np.testing.assert_array_equal([b[1] for b in streamed], y[expected])
    np.testing.assert_array_equal([b[0] for b in streamed], x[expected])
    resumed = data.batches((mapped, y), KEY, 4, start=70, stop=75)
    np.testing.assert_array_equal([b[1] for b in resumed], y[expected[70:75]])
    with pytest.raises(ValueError, match="training examples, 33, got batch_size=34"):
        data.batches((x, y), KEY, 34)


def test_prefetch_keeps_order_and_moves_to_the_device():
    device = jax.devices()[3]
    elements = [{"x": np.full(2, i), "y": (np.float32(i),)} for i in range(20)]
    moved = list(data.prefetch(elements, size=3, device=device))
    assert [int(e["x"][0]) for e in moved] == list(range(20))
    assert all(isinstance(a, jax.Array) and a.devices() == {device} for a in jax.tree.leaves(moved))


def test_prefetch_to_a_sharding():
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    moved = next(data.prefetch([np.arange(8)], device=sharding))
    assert moved.sharding == sharding


def test_prefetch_runs_ahead_by_its_size_and_no_further():
    made = []

    def source():
        for i in range(100):
            made.append(i)
            yield np.int32(i)

    with data.prefetch(source(), size=3) as stream:
        wait_for(lambda: len(made) == 3)
        assert int(next(stream)) == 0
        wait_for(lambda: len(made) == 4)
        time.sleep(0.05)
        assert len(made) == 4
    assert not running()
    with pytest.raises(StopIteration):
        next(stream)


def test_making_and_using_overlap():
    pause = 0.02

    def source():
        for i in range(10):
            time.sleep(pause)
            yield np.int32(i)

    start = time.perf_counter()
    for _ in data.prefetch(source()):
        time.sleep(pause)
    assert time.perf_counter() - start < 0.85 * 20 * pause


def test_an_exception_travels_in_its_place():
    class BrokenError(Exception):
        pass

    def source():
        yield np.int32(1)
        yield np.int32(2)
        raise BrokenError("at the third")

    stream = data.prefetch(source(), size=5)
    assert [int(next(stream)), int(next(stream))] == [1, 2]
    with pytest.raises(BrokenError, match="at the third") as error:
        next(stream)
    assert "source" in [entry.name for entry in error.traceback]
    assert list(stream) == []
    with pytest.raises(TypeError):
        next(data.prefetch(iter([object()])))


def test_making_the_iterator_may_fail():
    class NoIterator:
        def __iter__(self):
            raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        next(data.prefetch(NoIterator()))


def test_closing_closes_the_source_and_wakes_a_waiting_consumer():
    closed = threading.Event()

    def source():
        try:
            while True:
                yield np.zeros(3)
        finally:
            closed.set()

    stream = data.prefetch(source(), size=1)
    next(stream)
    stream.close()
    stream.close()
    assert closed.wait(2) and list(stream) == []

    release = threading.Event()

    def slow():
        release.wait(5)
        yield np.zeros(1)

    stream, seen = data.prefetch(slow()), []
    consumer = threading.Thread(target=lambda: seen.extend(stream))
    consumer.start()
    threading.Timer(0.1, release.set).start()
    stream.close()
    consumer.join(3)
    assert not consumer.is_alive()


def test_an_iterator_that_nobody_holds_is_collected():
    stream = data.prefetch(np.zeros(1) for _ in iter(int, 1))
    next(stream)
    gone = weakref.ref(stream)
    del stream
    gc.collect()
    assert gone() is None
    wait_for(lambda: not running())


def test_a_size_below_one_is_refused():
    with pytest.raises(ValueError, match=r"`size` must be in \[1, inf\), got size=0"):
        data.prefetch([], size=0)


def test_streamed_training_equals_resident_training():
    splits = data.synthetic.linear(90, features=3, valid=0, test=0)
    x, y = splits.train

    def step(w, batch):
        return w - 0.1 * jax.grad(lambda w: jnp.mean((batch[0] @ w - batch[1]) ** 2))(w)

    def resident(w, arrays):
        index = data.batch_indices(KEY, 0, 40, 8, 90)
        return jax.lax.scan(lambda w, i: (step(w, data.take(arrays, i)), None), w, index)[0]

    w = jnp.zeros((3, 1))
    expected = jax.jit(resident)(w, (jnp.asarray(x), jnp.asarray(y)))
    step = jax.jit(step)
    with data.prefetch(data.batches((x, y), KEY, 8, stop=40)) as stream:
        for batch in stream:
            w = step(w, batch)
    np.testing.assert_allclose(w, expected, rtol=1e-6)


@pytest.mark.slow
def test_a_torch_loader_just_works():
    torch = pytest.importorskip("torch")
    x = torch.arange(40, dtype=torch.float32).reshape(10, 4)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, torch.arange(10)), batch_size=3
    )
    seen = list(data.prefetch(loader))
    assert [b[0].shape for b in seen] == [(3, 4)] * 3 + [(1, 4)]
    np.testing.assert_array_equal(jnp.concatenate([b[0] for b in seen]), x.numpy())
    np.testing.assert_array_equal(jnp.concatenate([b[1] for b in seen]), np.arange(10))


@pytest.mark.slow
def test_a_grain_loader_just_works():
    grain = pytest.importorskip("grain")
    source = grain.MapDataset.source(np.arange(12.0)).batch(4)
    seen = list(data.prefetch(source.to_iter_dataset()))
    np.testing.assert_array_equal(jnp.stack(seen), np.arange(12.0).reshape(3, 4))


def test_a_source_may_fill_the_same_array_each_time():
    """Aligned, so that a CPU device would share its memory; large, so that it is copied late."""
    for size in (4, 2**18):
        buffer = aligned(np.zeros(size, np.float32))

        def source(buffer=buffer):
            for number in range(6):
                buffer[:] = number
                yield {"x": buffer}

        elements = list(data.prefetch(source(), size=3))
        for number, element in enumerate(elements):
            np.testing.assert_array_equal(element["x"], np.full(size, number, np.float32))
