"""Preemption notice: SIGTERM before a machine is taken away or a job's time ends, SIGINT where a user stops it (Ctrl-C)."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

from merit_jax.core.errors import UnfinishedError

log = logging.getLogger("merit_jax")

StopSignal = Callable[[int], bool]
"""(step) -> whether to save and stop before this step; called before every step, the same on every process."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def never_stop(step: int) -> bool:
    """Returns False: no notice comes."""
    return False


@contextlib.contextmanager
def preemption_notice() -> Iterator[StopSignal]:
    """Catches the notice while the block runs.

    Where processes work together, JAX's preemption service agrees on one step that none of them has begun, whichever got the
    notice; it listens to SIGTERM, which a SIGINT is passed on as. A single process stops before its next step. Python gives
    signals to the main thread alone: in others no notice comes.

    Raises:
        KeyboardInterrupt: SIGINT has come twice.
        UnfinishedError: The notice came to a single process and the block has ended all the same: no further work may begin.
    """
    if threading.current_thread() is not threading.main_thread():
        yield multihost_utils.reached_preemption_sync_point if jax.distributed.is_initialized() else never_stop
    elif jax.distributed.is_initialized():
        with _caught((signal.SIGINT,), lambda number: os.kill(os.getpid(), signal.SIGTERM)):
            yield multihost_utils.reached_preemption_sync_point
    else:
        came: list[str] = []
        with _caught(SIGNALS, lambda number: came.append(signal.Signals(number).name)):
            yield lambda step: bool(came)
        if came:
            raise UnfinishedError(f"preempted ({came[0]}); the work that had begun is finished")


@contextlib.contextmanager
def _caught(numbers: tuple[signal.Signals, ...], notice: Callable[[int], Any]) -> Iterator[None]:
    """Gives the first of these signals to `notice`; a second SIGINT interrupts."""
    came: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if number == signal.SIGINT and signal.SIGINT in came:
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            log.warning("interrupted: the state is saved before the next step; once more, and it is not")
        came.append(number)
        notice(number)

    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
