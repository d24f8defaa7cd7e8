"""What `evaluate` measures: a file for each kind of prediction, all of which return a `Measured`."""
