"""Quick compilation: most of these tests' time is the compiler's, which need not do its best."""

import jax
import pytest


@pytest.fixture(autouse=True)
def quick_compilation(request):
    """Leaves XLA's dearest passes out, except where a test takes its time and is marked slow."""
    quick = request.node.get_closest_marker("slow") is None
    jax.config.update("jax_disable_most_optimizations", quick)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
