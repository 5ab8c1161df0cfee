"""Forecasts, before training, which way of dividing a mixture serves it, from measurements and from a map of experiments."""
