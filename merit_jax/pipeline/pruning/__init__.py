"""Removal of attention heads from a run's merged model, or from the model that a run starts from."""
