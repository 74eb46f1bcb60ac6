"""Quick compilation, as in tests/nn."""

from tests.nn.conftest import quick_compilation  # noqa: F401
