"""Train a thousand networks as one JAX program."""
