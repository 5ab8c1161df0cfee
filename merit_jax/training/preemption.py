"""Preemption notice (SIGTERM), before a machine is taken away, a job's time ends, or a user stops it."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

from merit_jax.core.errors import UnfinishedError

StopSignal = Callable[[int], bool]
"""(step) -> whether to save and stop before this step; called before every step, the same on every process."""


def never_stop(step: int) -> bool:
    """Returns False: no notice comes."""
    return False


@contextlib.contextmanager
def preemption_notice() -> Iterator[StopSignal]:
    """Catches the notice while the block runs.

    Where processes work together, JAX's preemption service agrees on one step that none of them has begun, whichever got the
    notice. A single process stops before its next step. Python gives signals to the main thread alone: in others no notice
    comes.

    Raises:
        UnfinishedError: The notice came to a single process and the block has ended all the same: no further work may begin.
    """
    if jax.distributed.is_initialized():
        yield multihost_utils.reached_preemption_sync_point
    elif threading.current_thread() is not threading.main_thread():
        yield never_stop
    else:
        came = threading.Event()
        before = signal.signal(signal.SIGTERM, lambda number, frame: came.set())
        try:
            yield lambda step: came.is_set()
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
        if came.is_set():
            raise UnfinishedError("preempted (SIGTERM); the work that had begun is finished")
