"""Progress bars with rate and time left, on a terminal or notebook, by the first process only."""

import jax
from tqdm.auto import tqdm


def bar(total: int, description: str, unit: str, initial: int = 0) -> tqdm:
    """A progress bar; silent without a terminal."""
    disable = True if jax.process_index() else None
    return tqdm(total=total, desc=description, unit=unit, initial=initial, disable=disable, leave=False)
