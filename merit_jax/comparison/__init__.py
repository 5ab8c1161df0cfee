"""Compares runs: statistics and tables over methods and seeds."""
