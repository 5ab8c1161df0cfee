"""Text and images to model inputs, on the host."""
