"""The rows of `benchmark.py`, by subject; each function takes a `Setup` and gives rows of the table."""
