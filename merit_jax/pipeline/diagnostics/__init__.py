"""Connects a run to the diagnostics: models read leaf by leaf, batches, and costs."""
