"""TensorBoard: event files in a folder for each branch, under `tensorboard/` of the workdir."""

import os
from collections.abc import Mapping
from typing import Any

from merit_jax.training.trackers.interface import TrackedRun


class TensorBoard:
    """Event files of one branch. They are this branch's alone, so a resumed one writes them anew from its log.

    Attributes:
        latest: -1: it has nothing.
    """

    latest = -1

    def __init__(self, run: TrackedRun) -> None:
        from tensorboardX import SummaryWriter

        folder = run.directory / "tensorboard" / run.name
        for old in folder.glob("events.out.tfevents.*") if folder.exists() else ():
            old.unlink()
        self._writer: Any = SummaryWriter(os.fspath(folder), flush_secs=10)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, *, finished: bool) -> None:
        """Closes the file."""
        self._writer.close()
