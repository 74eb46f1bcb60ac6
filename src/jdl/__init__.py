"""Train a thousand networks as one JAX program."""

import importlib
from types import ModuleType

__all__ = [
    "data",
    "diagnose",
    "losses",
    "metrics",
    "models",
    "nn",
    "optim",
    "sweep",
    "train",
    "tree",
]


def __getattr__(name: str) -> ModuleType:
    """Imports a part of the library when it is first used: `jdl --help` needs none."""
    if name in __all__:
        return importlib.import_module(f"jdl.{name}")
    raise AttributeError(f"module 'jdl' has no attribute {name!r}; it has {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return __all__
