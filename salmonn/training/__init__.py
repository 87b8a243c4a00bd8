"""Training: from the stream to the checkpoints of a run."""
