"""Checkpoints of branches and of merged models, read and written leaf by leaf."""
