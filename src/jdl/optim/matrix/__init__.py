"""Rules that see a whole layer: its norm, its rows and columns, its matrix."""
