"""The stages of a run: each reads the artifacts of earlier stages and computes its own."""
