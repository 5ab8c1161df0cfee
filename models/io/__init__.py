"""Reads and writes weight files."""
