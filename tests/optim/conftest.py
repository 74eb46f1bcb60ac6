"""No check of keys, which few optimizers use; it takes a quarter of the time of eager calls."""

import jax
import pytest


@pytest.fixture(autouse=True)
def keys_unchecked():
    with jax.debug_key_reuse(False):
        yield
