"""From a workdir to what each diagnostic takes: models read leaf by leaf, batches, and what it will cost."""
