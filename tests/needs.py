"""Marks of tests that need what a machine may lack."""

import os

import pytest

from jdl.data.idx import FASHION_FOLDER

fashion_mnist = pytest.mark.skipif(
    not os.path.isdir(FASHION_FOLDER),
    reason="Debian's package dataset-fashion-mnist is not installed",
)
