"""Generates the pages of the site that repeat facts of the code."""
