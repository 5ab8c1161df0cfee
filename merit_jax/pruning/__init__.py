"""Removal of attention heads: pure functions of their scores."""
