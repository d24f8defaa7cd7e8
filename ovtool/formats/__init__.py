"""Reading and writing files: every format, its checks, and nothing of networks."""
