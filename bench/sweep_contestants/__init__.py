"""The contestants of sweep.py: each trains the same trials, in a process of its own."""
