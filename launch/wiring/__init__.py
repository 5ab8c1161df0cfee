"""Connects configs, models and the method."""
