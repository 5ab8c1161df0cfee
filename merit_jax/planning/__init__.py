"""What a run will need, from shapes alone: memory, work, storage, traffic, time and cost."""
