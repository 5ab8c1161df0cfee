"""Records the state of a branch between two steps: a line of the log, an evaluation, a checkpoint."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from merit_jax.checkpoints.branch_checkpoint import Checkpoints, Progress
from merit_jax.core.types import Leaves, TrainState
from merit_jax.training.held_out import EarlyStopping, HeldOut
from merit_jax.training.metrics_log import MetricsLog, Watcher


def trained_leaves(state: TrainState) -> Leaves:
    """Returns the leaves of a state as they are trained."""
    return state.leaves


class Recording(NamedTuple):
    """Evaluation of a branch while it trains, and where its log is shown.

    Attributes:
        evaluated: A state -> the leaves that are evaluated, and kept at the end.
        held_out: When the loss on held-out examples is computed, and when it ends training.
        datasets: Names of the mixture's datasets, where the step sums its loss by dataset.
        watcher: Shows the lines of the log elsewhere.
    """

    evaluated: Callable[[TrainState], Leaves] = trained_leaves
    held_out: HeldOut = HeldOut()
    datasets: Sequence[str] = ()
    watcher: Watcher | None = None


class Recorder:
    """Records the states of one branch.

    Attributes:
        log: The log.
        early: The best state, and whether training is over.
    """

    def __init__(
        self,
        log: MetricsLog,
        checkpoints: Checkpoints,
        early: EarlyStopping,
        recording: Recording,
        checkpoint_every: int,
    ) -> None:
        """Takes where to record, and when."""
        self.log, self.early, self._checkpoints = log, early, checkpoints
        self._evaluated, self._held_out, self._checkpoint_every = (
            recording.evaluated,
            recording.held_out,
            checkpoint_every,
        )

    def record(self, state: TrainState, at: Progress, data: Callable[[], Any], *, stopping: bool, last: bool) -> bool:
        """Records a state, once; returns whether training ends with it.

        Args:
            state: The state.
            at: Its progress.
            data: Returns the state of the data iterator, as JSON values.
            stopping: Whether a checkpoint is wanted here in any case.
            last: Whether the data has ended.
        """
        saving = at.step > 0 and not last and (stopping or at.step % self._checkpoint_every == 0)
        evaluating = self._held_out.due(at.step, last=last)
        if saving or evaluating or last or self.log.due(at.step):
            leaves = self._evaluated(state)
            found = self.log.write(at.step, leaves, self._held_out.measure if evaluating else None)
            if found is not None:
                self.early.observe(found.loss, at.step, at.tokens, leaves)
        if last or self.early.over:
            return True
        if saving:
            self._checkpoints.save(state, at._replace(data=data(), best=self.early.record), best=self.early.leaves)
        return False

    def kept(self, state: TrainState) -> Leaves:
        """Returns the leaves that are kept at the end: the best ones of early stopping, else the state's."""
        return self._evaluated(state) if self.early.leaves is None else self.early.leaves
