"""Where the work runs: devices, precision, and the engine that drives parts."""
