"""Progress bars with rate and time left, by the first process only."""

import sys

import jax
from tqdm.auto import tqdm

LOG_SECONDS = 60.0
"""How often a bar is written where there is no terminal, such as a log file."""


def bar(total: int, description: str, unit: str, initial: int = 0) -> tqdm:
    """A progress bar; now and then a line of a log file where there is no terminal."""
    live = sys.stderr.isatty() or "ipykernel" in sys.modules
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        initial=initial,
        disable=jax.process_index() > 0,
        mininterval=0.2 if live else LOG_SECONDS,
        leave=False,
    )
