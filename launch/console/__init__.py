"""Flags, error handling, states and tables of the commands."""
