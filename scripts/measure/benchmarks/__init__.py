"""The rows of `benchmark.py`, by subject; each function takes a `Setup` and gives rows of the table.

Threads without work sleep, in our ways and in the references, as they do in every `ovtool` command; torch reads that
once, when it is loaded.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
