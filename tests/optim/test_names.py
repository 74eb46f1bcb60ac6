"""Every optimizer by its name."""

import pytest

from jdl import optim
from jdl.optim.names import OPTIMIZERS


def test_a_name_gives_the_constructor_of_that_name():
    for name in OPTIMIZERS:
        assert optim.by_name(name) is getattr(optim, name)
    match = r"`name` must be one of 'sgd', 'momentum', .*got name='adm'"
    with pytest.raises(ValueError, match=match):
        optim.by_name("adm")
