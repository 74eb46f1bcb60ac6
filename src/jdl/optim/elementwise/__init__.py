"""Rules that move each parameter by its own gradient alone, from gradient descent to Sophia."""
