"""What the host holds against what the device can: every type and extreme value, every form."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.data.formats import CODES, idx_bytes

from jdl import data, nn, optim, train

FLOATS = ["float16", "float32", "float64", "longdouble", ml_dtypes.bfloat16]
INTEGERS = [sign + width for sign in ("int", "uint") for width in ("8", "16", "32", "64")]
NUMBERS = [np.dtype(kind) for kind in (*FLOATS, *INTEGERS, "bool")]
NUMBERS += [dtype.newbyteorder(">") for dtype in NUMBERS if dtype.kind != "V"]


def native(dtype):
    return dtype if dtype.kind == "V" else dtype.newbyteorder("=")


def extremes(dtype):
    """Values at and beside every limit that a narrower type has."""
    dtype = native(dtype)
    if dtype.kind == "b":
        return [False, True]
    if dtype.kind in "iu":
        limits = [0, 2**31, 2**32, 2**53, 2**63, 2**64]
        near = [sign * limit + step for limit in limits for sign in (1, -1) for step in (-1, 0, 1)]
        info = np.iinfo(dtype)
        return [value for value in near if info.min <= value <= info.max]
    near = [0, 1, 0.1, 65504, 3.4e38, 3.5e38, 1e39, 1e300, np.inf, np.nan, 1e-50]
    info = np.finfo(dtype) if dtype.kind == "f" else jnp.finfo(dtype)
    with np.errstate(over="ignore"):
        return [*(sign * value for value in near for sign in (1, -1)), info.max, info.min]


@st.composite
def arrays(draw, length=12):
    dtype = draw(st.sampled_from(NUMBERS))
    value = st.sampled_from(extremes(dtype))
    if dtype.kind in "fV":
        value = st.one_of(value, st.floats(-1e3, 1e3))
    values = draw(st.lists(value, min_size=length, max_size=length))
    with np.errstate(over="ignore"):
        return np.array(values).astype(dtype) if dtype.kind != "u" else np.array(values, dtype)


def holds(array):
    """Whether 32 bits hold the values, up to the rounding of float32: in Python's own numbers."""
    values = [value.item() for value in array.astype(native(array.dtype))]
    if array.dtype.kind in "iu":
        low, high = (-(2**31), 2**31) if array.dtype.kind == "i" else (0, 2**32)
        return all(low <= value < high for value in values)
    largest = float(np.finfo(np.float32).max)
    return all(bool(abs(value) <= largest) for value in values)


def assert_on_the_device(given, held):
    """The values are there, each as near as its type on the device can be."""
    there = np.asarray(jnp.asarray(held))
    if given.dtype.kind in "biu":
        assert [int(v) for v in there] == [int(v) for v in given]
    else:
        np.testing.assert_allclose(
            there.astype(np.float64), given.astype(np.float64), rtol=2.0**-23, atol=2.0**-126
        )


@settings(max_examples=300, deadline=None)
@given(arrays())
def test_values_are_on_the_device_as_given_or_refused(x):
    y = np.arange(12) % 2
    for make in (
        lambda: data.from_arrays(x, y, valid=0, test=0),
        lambda: data.check(data.Dataset((x, y))),
        lambda: data.check(data.Dataset(((x, x), y), None, ((x, x), y))),
        lambda: data.from_arrays(y, x.astype("f8") if x.dtype.kind == "V" else x, valid=0, test=0),
    ):
        if not holds(x):
            with pytest.raises(data.DataError, match=r"[xy].*\[\d+\] is .*(finite|not fit|labels)"):
                make()
    if not holds(x):
        return
    splits = data.from_arrays(np.stack([np.arange(12.0).astype(x.dtype), x], 1), y, valid=3, test=2)
    rows = np.concatenate([split[0] for split in splits])
    assert jax.dtypes.canonicalize_dtype(rows.dtype) == rows.dtype
    if x.dtype.kind != "b":
        assert_on_the_device(x, rows[np.argsort(rows[:, 0], kind="stable"), 1])
    for split in data.check(data.Dataset((x, y), (x, y))):
        if split is not None:
            assert_on_the_device(x, split[0])


@settings(max_examples=150, deadline=None)
@given(arrays())
def test_labels_are_on_the_device_as_given_or_refused(y):
    """Integers of one axis: from 0, in int32; nothing wraps."""
    if y.dtype.kind not in "iu":
        return
    x = np.arange(24.0).reshape(12, 2)
    if all(0 <= value.item() < 2**31 for value in y):
        splits = data.from_arrays(x, y, valid=0, test=0)
        assert splits.train[1].dtype == np.int32
        order = np.argsort(splits.train[0][:, 0])
        assert_on_the_device(y, splits.train[1][order])
        assert data.classes(splits) == int(y.max()) + 1
    else:
        with pytest.raises(data.DataError, match=r"^y\[\d+\] is -?\d+"):
            data.from_arrays(x, y)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.integers(), st.floats()), min_size=3, max_size=9))
def test_numbers_of_a_csv_file_are_on_the_device_as_written_or_refused(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "numbers.csv"
    path.write_text(
        "index,value,target\n" + "".join(f"{i},{v},0.5\n" for i, v in enumerate(values))
    )
    largest = float(np.finfo(np.float32).max)
    bad = [i for i, v in enumerate(values) if not abs(v) <= largest]
    if bad:
        with pytest.raises(data.DataError, match=rf"line {bad[0] + 2}, column 2 \(value\): "):
            data.csv(path, valid=0, test=0)
        return
    x = data.csv(path, valid=0, test=0).train[0]
    expected = np.array([float(v) for v in values])
    held = x[np.argsort(x[:, 0]), 1]
    np.testing.assert_allclose(held, expected, rtol=2.0**-23, atol=2.0**-126)


def test_the_numbers_of_the_fault():
    y = np.arange(6) % 2
    with pytest.raises(data.DataError, match=r"^x\[0\] is 1700000000000, which does not fit int32"):
        data.from_arrays(np.full(6, 1_700_000_000_000), y)
    with pytest.raises(data.DataError, match=r"^y\[5\] is 4294967297"):
        data.from_arrays(np.ones(6), np.array([0, 0, 0, 0, 0, 2**32 + 1]))
    with pytest.raises(data.DataError, match=r"^x\[2, 1\] is 1e\+39, which does not fit float32"):
        data.from_arrays(np.array([[1, 2], [3, 4], [5, 1e39]]), y[:3])


def test_in_64_bits_the_device_holds_more(x64):
    wide = np.array([1_700_000_000_000, 5, 2**62])
    splits = data.check(data.Dataset((wide, np.array([1e300, 2, 3]))))
    assert jnp.asarray(splits.train[0]).tolist() == wide.tolist()
    assert data.from_arrays(wide, np.arange(3) % 2, valid=0, test=0).train[0].dtype == np.int64
    with pytest.raises(data.DataError, match=r"^y\[0\] is 4294967296: labels must be"):
        data.from_arrays(wide, np.array([2**32, 0, 1]))


@pytest.mark.parametrize("where", ["x", "y", "x['a']"])
def test_masked_values_are_refused(where):
    values = np.ma.masked_array(np.arange(12.0).reshape(6, 2), np.arange(12).reshape(6, 2) == 7)
    plain = np.arange(6) % 2
    x, y = {"x": (values, plain), "y": (plain, values), "x['a']": ({"a": values}, plain)}[where]
    name = where.replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(data.DataError, match=rf"^{name}\[3, 1\] is masked: fill in the 1 masked"):
        data.from_arrays(x, y)
    with pytest.raises(data.DataError, match=rf"^valid {name}\[3, 1\] is masked"):
        data.check(data.Dataset((jax.tree.map(np.asarray, x), np.asarray(y)), (x, y)))
    filled = data.from_arrays(np.ma.masked_array(plain), plain, valid=0, test=0)
    assert sorted(filled.train[0]) == sorted(plain) and type(filled.train[0]) is np.ndarray


@pytest.mark.parametrize("make", [list, tuple])
def test_lists_are_arrays(make):
    x, y = [[0.5, 1], [2, 3], [4, 5]], make([0, 1, 0])
    splits = data.check(data.Dataset((x, y), (make(x), y)))
    for split in splits[:2]:
        assert split[0].shape == (3, 2) and split[1].tolist() == [0, 1, 0]
    assert data.from_arrays(x, y, valid=0, test=0).train[0].dtype == np.float32


TREE = {"image": np.arange(96.0).reshape(12, 2, 4), "meta": np.arange(12)[:, None]}


@pytest.mark.parametrize("x", [TREE, (TREE["image"], TREE["meta"]), {"a": TREE}])
def test_trees_of_arrays_stay_together(x):
    y = np.arange(12) % 3
    splits = data.from_arrays(x, y, valid=3, test=3)
    for part, labels in splits:
        image, meta = jax.tree.leaves(part)
        assert image.shape[1:] == (2, 4) and image.dtype == np.float32
        np.testing.assert_array_equal(image[:, 0, 0], 8 * meta[:, 0])
        np.testing.assert_array_equal(labels, meta[:, 0] % 3)
        assert jax.tree.structure(part) == jax.tree.structure(x)
    assert [len(split[1]) for split in splits] == [6, 3, 3]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"a": np.ones(6), "b": np.ones(5)}, r"x\['a'\] has 6 examples and x\['b'\] has 5"),
        ({"a": np.ones(6), "b": np.ones((6, 0))}, r"x\['b'\] is empty \(shape \(6, 0\)\)"),
        ({"a": np.ones(6), "b": np.float32(3)}, "must have an axis of examples"),
        ({"a": np.array([1, 2, np.nan, 4, 5, 6])}, r"x\['a'\]\[2\] is nan: every value"),
        ({"a": np.array(["b"] * 6)}, r"x\['a'\] has dtype <U1: expected numbers"),
        ({}, "must each have an array"),
    ],
)
def test_trees_that_are_refused(x, message):
    with pytest.raises(data.DataError, match=message):
        data.from_arrays(x, np.arange(6) % 2)
    with pytest.raises(
        data.DataError, match=r"^train .*" + message.replace("and x", "and train x")
    ):
        data.check(data.Dataset((x, np.arange(6) % 2)))


def test_splits_of_other_trees():
    y = np.arange(6) % 2
    with pytest.raises(data.DataError, match=r"valid x is PyTreeDef.*'b'.*as in train x"):
        data.check(data.Dataset(({"a": np.ones(6)}, y), ({"b": np.ones(6)}, y)))
    with pytest.raises(data.DataError, match=r"valid x\['a'\] has examples of shape \(2,\)"):
        data.check(data.Dataset(({"a": np.ones(6)}, y), ({"a": np.ones((6, 2))}, y)))
    with pytest.raises(data.DataError, match="`standardize` takes an x of one array"):
        data.from_arrays({"a": np.ones(6)}, y, standardize=True)


def classifier():
    return train.classifier(nn.chain(nn.flatten, nn.dense(2)), optim.sgd(0.1))


def trained(x, y, **options):
    dataset = data.check(data.Dataset((x, y), (x, y)))
    fitted = train.fit(classifier(), dataset, steps=3, batch_size=4, progress=False, **options)
    return fitted.metrics["valid_loss"]


@pytest.mark.parametrize("kind", ["bool", "float16", "longdouble", ">i8", "list"])
def test_numbers_of_other_types_train(kind):
    """To the loss of the same numbers in float32, from the device and streamed."""
    x, y = np.arange(16).reshape(8, 2) % 2, np.arange(8) % 2
    expected = pytest.approx(trained(x.astype("f4"), y), rel=1e-5)
    x = x.tolist() if kind == "list" else x.astype(kind)
    for resident in (True, False):
        assert trained(x, y.tolist(), resident=resident) == expected


@pytest.mark.parametrize("kind", CODES)
def test_memory_mapped_files_are_native_on_their_way(tmp_path, kind):
    x = np.arange(16).reshape(8, 2) % 5
    (tmp_path / "x").write_bytes(idx_bytes(x, kind))
    mapped = data.idx(tmp_path / "x", mmap=True)
    checked = data.check(data.Dataset((mapped, np.arange(8) % 2))).train[0]
    (batch,) = data.batches(mapped, jax.random.key(0), 8, stop=1)
    with data.prefetch([mapped]) as ready:
        on_device = next(ready)
    for held in (jnp.asarray(checked), jnp.asarray(batch)[np.argsort(batch[:, 0])], on_device):
        assert sorted(held.ravel().tolist()) == sorted(x.ravel().tolist())
    assert checked.dtype == batch.dtype == np.dtype(kind).newbyteorder("=")


@pytest.mark.parametrize("resident", [True, False])
def test_a_memory_mapped_file_of_floats_trains(tmp_path, resident):
    x, y = np.arange(16).reshape(8, 2) % 5, np.arange(8) % 2
    (tmp_path / "x").write_bytes(idx_bytes(x, ">f4"))
    (tmp_path / "y").write_bytes(idx_bytes(y, ">i4"))
    mapped = [data.idx(tmp_path / name, mmap=True) for name in "xy"]
    expected = pytest.approx(trained(x.astype("f4"), y), rel=1e-6)
    assert trained(*mapped, resident=resident) == expected


@pytest.mark.parametrize("value", [2**40, 1e39, np.ma.masked])
def test_a_stream_is_held_to_the_same(value):
    x = np.ma.masked_array(np.zeros((4, 2), np.int64 if isinstance(value, int) else np.float64))
    x[2, 1] = value
    source = [(np.zeros((4, 2), x.dtype), np.arange(4) % 2), (x, np.arange(4) % 2)]
    stream = data.Stream(source, steps_per_epoch=2)
    with pytest.raises(
        data.DataError, match=r"batch\[0\]\[2, 1\] is (masked|.* which does not fit)"
    ):
        train.fit(classifier(), (stream, None, None), steps=4, batch_size=4, progress=False)


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("value", [0.1, -3.3, 1e16 / 3, 1e-7, 7.0])
@pytest.mark.parametrize("name", ["standardize", "standardize_channels"])
def test_a_constant_is_only_centred(kind, value, name):
    """Its mean over many examples is off by a rounding, which is no deviation to divide by."""
    x = np.stack([np.full(1257, value), np.linspace(-1, 2, 1257)], 1).astype(kind)
    fitted = getattr(data.preprocess, name)(x)
    assert fitted.scale[0, 0] == 1 and fitted.apply(x).dtype == np.dtype(kind)
    assert (fitted.apply(x)[:, 0] == 0).all()
    assert fitted.apply(x[:1] + np.array([4, 0], kind))[0, 0] == pytest.approx(
        4, abs=abs(value) / 1e6
    )
    np.testing.assert_allclose(fitted.apply(x)[:, 1].std(), 1, rtol=1e-5)


def test_a_saved_preprocessing_keeps_shapes_and_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for kind in ("f4", "f8"):
        fitted = data.preprocess.zero_mean(np.arange(6.0).reshape(3, 2).astype(kind))
        fitted.save("~/p")
        back = data.preprocess.load("~/p")
        assert back.scale.shape == () and back.mean.dtype == kind and (tmp_path / "p").exists()
        np.testing.assert_array_equal(back.mean, fitted.mean)


def test_any_numbers_may_be_preprocessed():
    x = [[1, 4], [3, 4]]
    for new in (x, np.array(x, ">f8"), np.array(x, ">i4"), np.array(x, ml_dtypes.bfloat16)):
        fitted = data.preprocess.standardize(new)
        assert fitted.apply(new).tolist() == [[-1, 0], [1, 0]]
        assert fitted.apply(new).dtype.isnative


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 5)),
    st.integers(0, 9),
    st.data(),
)
def test_folds_and_splits_spread_each_class_to_within_one_example(labels, seed, draw):
    count = len(labels)
    cuts = sorted(draw.draw(st.lists(st.integers(0, count), min_size=3, max_size=3)))
    sizes = tuple(int(size) for size in np.diff([0, *cuts]))
    parts = data.split_indices(count, sizes, seed, labels)
    assert tuple(map(len, parts)) == sizes
    taken = np.concatenate(parts)
    assert len(np.unique(taken)) == len(taken)
    of_class = np.bincount(labels, minlength=6)
    for part in parts:
        fair = of_class * len(part) / count
        assert (abs(np.bincount(labels[part], minlength=6) - fair) < 1 - 1e-9).all()
    if count > 1:
        folds = draw.draw(st.integers(2, count))
        pairs = data.kfold(count, folds, seed=seed, labels=labels)
        valid = [np.bincount(labels[part], minlength=6) for _, part in pairs]
        assert np.ptp(valid, axis=0).max() <= 1
        assert np.ptp([len(part) for _, part in pairs]) <= 1
        assert sorted(np.concatenate([part for _, part in pairs])) == list(range(count))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(0, 99))
def test_every_class_has_a_training_example_or_is_named(counts, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    x = np.arange(len(labels), dtype=float)
    try:
        splits = data.from_arrays(x, labels, seed=seed, valid=0.2, test=0.3)
    except data.DataError as error:
        held = round(0.2 * len(x)) + round(0.3 * len(x))
        assert len(x) - held < len(counts)
        rare = int(np.argmin(counts))
        assert f"class {rare} has {counts[rare]} of {len(x)} examples" in str(error)
        return
    assert {*splits.train[1].tolist()} == {*range(len(counts))}
    rows = [int(row) for split in splits if split for row in split[0]]
    assert sorted(rows) == list(range(len(labels)))


def test_many_rare_classes():
    """70 of 100 examples train; 10 classes of one each leave 60 of the 90 of the large one."""
    labels = np.array([*range(1, 11), *[0] * 90])
    splits = data.from_arrays(np.zeros(100), labels, seed=4)
    train_counts, valid_counts, test_counts = (np.bincount(s[1], minlength=11) for s in splits)
    assert train_counts.tolist() == [60, *[1] * 10]
    assert (valid_counts[0], test_counts[0]) == (10, 20)


def test_batches_of_lists():
    (batch,) = data.batches(([[1, 2], [3, 4], [5, 6]], [0, 1, 0]), jax.random.key(0), 3, stop=1)
    x, y = batch
    assert sorted(zip(x.tolist(), y.tolist())) == [([1, 2], 0), ([3, 4], 1), ([5, 6], 0)]
