"""Measures a machine: ceilings, optimizer updates, layers, training steps and lanes."""
