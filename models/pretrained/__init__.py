"""Loads, exports and composes pretrained checkpoints."""
