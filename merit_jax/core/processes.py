"""The place of this process among those of a run."""

import sys


def is_first_process() -> bool:
    """Returns whether this process prints and writes for all; one that has not loaded JAX has joined no others."""
    jax = sys.modules.get("jax")
    return jax is None or jax.process_index() == 0
