"""The stages, one file per command: read, compute, write, and never print. The Python API."""
