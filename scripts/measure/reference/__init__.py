"""What a user would write without ovtool: plain ways to the results that `benchmark.py` compares speed with.

None of them imports from ovtool, so that they can be read alone; tests hold them against the package.
"""
