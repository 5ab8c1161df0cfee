"""Merge operators, one file each."""
