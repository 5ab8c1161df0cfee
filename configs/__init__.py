"""Experiments: every key in `common.py`, then one short file of overrides per experiment."""
