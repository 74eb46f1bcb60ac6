"""Second-order steps and line searches, and the compiled loops that solve with them."""
