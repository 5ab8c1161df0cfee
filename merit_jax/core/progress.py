"""Progress bars with rate and time left, by the first process only."""

import sys

from tqdm.auto import tqdm

from merit_jax.core.processes import is_first_process

LOG_SECONDS = 60.0
"""Seconds between lines where there is no terminal, such as in a log file."""


def bar(total: int, description: str, unit: str, initial: int = 0) -> tqdm:
    """Makes a progress bar, which writes a line now and then where there is no terminal."""
    live = sys.stderr.isatty() or "ipykernel" in sys.modules
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        initial=initial,
        disable=not is_first_process(),
        mininterval=0.2 if live else LOG_SECONDS,
        leave=False,
    )
