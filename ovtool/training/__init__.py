"""Training: loops, checkpoints, and what they share."""
