"""From the arguments of a run to its workload: steps, reports, shapes, what is refused."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jdl.data import Dataset
from jdl.engine.workload import make_workload, shapes_of, splits_of

X, Y = np.zeros((23, 2, 3), np.float64), np.zeros(23, np.int64)
DATA = Dataset((X, Y), (X[:5], Y[:5]), None)


def make(data=DATA, **options):
    options = {
        "epochs": None, "steps": None, "batch_size": 4, "report_every": None,
        "eval_batch_size": 9, "diverged_above": 7.0, **options,
    }  # fmt: skip
    return make_workload(lambda numbers: numbers, data, **options)


@pytest.mark.parametrize(
    ("options", "every", "reports"),
    [
        ({"epochs": 3}, 5, 3),  # five batches of four in 23 examples
        ({"epochs": 3, "report_every": 3}, 3, 5),
        ({"steps": 12}, 4, 3),  # the largest divisor within an epoch
        ({"steps": 11}, 11, 1),  # 1 would be a sliver of an epoch
        ({"steps": 12, "report_every": 12}, 12, 1),
        ({"epochs": 2, "batch_size": 23}, 1, 2),
    ],
)
def test_steps_and_reports(options, every, reports):
    work = make(**options)
    assert (work.report_every, work.reports, work.steps) == (every, reports, every * reports)


def test_it_holds_shapes_in_the_dtypes_of_the_device_and_no_data():
    work = make(epochs=1)
    assert sorted(work.splits) == ["train", "valid"]
    leaves = jax.tree.leaves((work.batch, work.splits))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    assert [(leaf.shape, str(leaf.dtype)) for leaf in leaves] == [
        ((4, 2, 3), "float32"), ((4,), "int32"),
        ((23, 2, 3), "float32"), ((23,), "int32"),
        ((5, 2, 3), "float32"), ((5,), "int32"),
    ]  # fmt: skip
    assert shapes_of({"a": X[:0]})["a"].shape == (0, 2, 3)
    assert splits_of(Dataset(None, None, DATA.valid)) == {"test": DATA.valid}


def test_a_stream_has_a_batch_and_no_training_split():
    held = Dataset(None, DATA.valid, None)
    batch = X[:6], Y[:6]
    work = make(held, steps=12, batch_size=6, batch=batch)
    assert sorted(work.splits) == ["valid"] and work.batch[0].shape == (6, 2, 3)
    assert (work.report_every, work.reports) == (12, 1)
    assert make(held, steps=12, batch_size=6, batch=batch, report_every=3).reports == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either `epochs` or `steps`, got epochs=None, steps=None"),
        ({"epochs": 1, "steps": 2}, "either `epochs` or `steps`, got epochs=1, steps=2"),
        ({"epochs": 0}, "`epochs` must be an integer of at least 1, got epochs=0"),
        ({"steps": 4, "batch_size": 0}, "`batch_size` must be .* got batch_size=0"),
        ({"steps": 4, "eval_batch_size": -1}, "`eval_batch_size` must be .*=-1"),
        ({"steps": 4, "report_every": 3}, "`report_every` must divide the 4 steps .*=3"),
        ({"steps": 4, "diverged_above": 0.5}, r"`diverged_above` must be in \[1, inf\]"),
        ({"epochs": 1, "batch_size": 24}, "23, got batch_size=24"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
