"""Rules that need no schedule, or no learning rate."""
