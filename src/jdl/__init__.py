"""Train a thousand networks as one JAX program."""

from jdl import data, losses, metrics, models, nn, optim, sweep, train, tree

__all__ = ["data", "losses", "metrics", "models", "nn", "optim", "sweep", "train", "tree"]
