"""The directory of a run: where artifacts lie, how they are written, and who holds them."""
