"""Trajectories equal to optax's and torch's, recorded in float64 by golden/record_optim.py."""

import inspect
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
sys.path.insert(0, str(GOLDEN))
from optim_cases import CASES, SHOWN, STEPS, gradients, params  # noqa: E402

RECORDED = dict(np.load(GOLDEN / "optim.npz"))
SIGNATURES = json.loads((GOLDEN / "optax_signatures.json").read_text())


@pytest.mark.parametrize(
    ("number", "case"),
    list(enumerate(CASES)),
    ids=[f"{case.name} {i} {case.peer.split('.')[0]}" for i, case in enumerate(CASES)],
)
def test_equals_the_recorded_trajectory(number, case, x64):
    optimizer = getattr(optim, case.name)(**case.arguments)
    w = jax.tree.map(jnp.asarray, params())
    grads, state = gradients(), optimizer.init(w)
    for step in range(STEPS):
        g = {key: jnp.asarray(grads[key][step]) for key in grads}
        updates, state = optimizer.update(g, state, w)
        w = optim.apply_updates(w, updates)
        shown = updates if case.peer.startswith("optax") else w
        if step in SHOWN:
            for key, value in shown.items():
                expected = RECORDED[f"{number} {case.peer} {key}"][SHOWN.index(step)]
                np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-300)


# Where an argument's name, place or default differs from optax's, and why.
DEPARTURES = {
    ("adadelta", "learning_rate"): "optax's None means no rate at all; the paper's is 1",
    ("add_noise", "key"): "required: no hidden randomness",
    ("add_noise", "seed"): "the old name of key",
}


@pytest.mark.parametrize("name", list(SIGNATURES))
def test_arguments_are_named_ordered_and_valued_as_in_optax(name):
    ours = inspect.signature(getattr(optim, name)).parameters
    place = 0
    for argument, default, keyword_only in SIGNATURES[name]:
        if argument == "seed":
            continue
        assert argument in ours, argument
        if not keyword_only:
            assert list(ours)[place] == argument
            place += 1
        if (name, argument) not in DEPARTURES:
            found = ours[argument].default
            assert ("required" if found is inspect.Parameter.empty else found) == default
