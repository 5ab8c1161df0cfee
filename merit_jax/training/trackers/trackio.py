"""Trackio: a run for each branch, in one group. `TRACKIO_DIR`, `TRACKIO_SPACE_ID` and its other variables apply."""

from collections.abc import Mapping
from typing import Any

from merit_jax.training.trackers.interface import TrackedRun


class Trackio:
    """A run of trackio, which finds it again by its name: that of the branch and a part of its id.

    Attributes:
        latest: The last step that its database has.
    """

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        name = f"{run.group}/{run.name}-{run.id[:8]}"
        self._run: Any = trackio.init(
            project=run.project, name=name, group=run.group, config=dict(run.config), resume="allow", embed=False
        )
        self.latest = getattr(self._run, "_next_step", 0) - 1

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds values; trackio writes them in the background."""
        self._run.log(dict(values), step=step)

    def close(self, *, finished: bool) -> None:
        """Waits until all is written."""
        self._run.finish()
