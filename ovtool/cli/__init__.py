"""The command line: each file declares the options of a command, calls its stage, and prints."""
