"""Weights & Biases: a run for each branch, in one group. `WANDB_MODE=offline` and the other variables of wandb apply."""

from collections.abc import Mapping
from typing import Any

from merit_jax.training.trackers.interface import TrackedRun


class WeightsAndBiases:
    """A run of wandb, resumed by its id.

    An offline run knows nothing of one before it and gets the whole log again; a server that has some of it already leaves those
    steps out.

    Attributes:
        latest: The last step that the server has.
    """

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self._run: Any = wandb.init(
            project=run.project,
            group=run.group,
            name=run.name,
            id=run.id,
            resume="allow",
            dir=str(run.directory),
            config=dict(run.config),
        )
        self.latest = int(self._run.step) - 1 if self._run.resumed else -1

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds values; wandb sends them in the background."""
        self._run.log(dict(values), step=step, commit=True)

    def close(self, *, finished: bool) -> None:
        """Waits until all is sent."""
        self._run.finish(exit_code=0 if finished else 1)
