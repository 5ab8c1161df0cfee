"""Connects configs, models and the method: the only place that knows all three."""
