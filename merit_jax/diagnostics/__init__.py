"""Measurements of models, mixtures and merges: pure functions of losses, parameters and batches."""
