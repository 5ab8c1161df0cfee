"""The stages of a run: each reads artifacts of the stages before it and writes its own."""
