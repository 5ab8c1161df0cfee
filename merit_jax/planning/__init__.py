"""Plans a run from shapes alone: memory, FLOPs, storage, traffic, time and cost."""
