"""What came out of a comparison, as numbers and as tables."""
