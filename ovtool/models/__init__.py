"""The doors to other people's networks."""
