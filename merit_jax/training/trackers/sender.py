"""Sends the log of a branch to trackers while it trains: in the background, so that none can slow it down or stop it."""

import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from merit_jax.training.trackers.interface import TrackedRun, Tracker, TrackerKind, flat_values

Line = Mapping[str, Any]

CLOSING_SECONDS = 60.0
"""Time that a tracker has to send what is left when a branch ends."""

log = logging.getLogger("merit_jax")


class Senders:
    """The trackers of one branch, as the `watcher` of its log.

    Args:
        kinds: The trackers by name.
        run: The branch.
        patience: Seconds that each has to send what is left when the branch ends.
    """

    def __init__(self, kinds: Mapping[str, TrackerKind], run: TrackedRun, patience: float = CLOSING_SECONDS) -> None:
        self._senders = [_Sender(name, partial(kind.open, run)) for name, kind in kinds.items()]
        self._patience = patience

    def begin(self, lines: Sequence[Line]) -> None:
        """Sends those of the lines that a tracker lacks: what a killed process did not come to send."""
        for line in lines:
            self.add(line)

    def add(self, line: Line) -> None:
        """Sends a line, if the tracker does not have its step from before the branch was resumed."""
        for sender in self._senders:
            sender.put(line)

    def close(self, *, finished: bool) -> None:
        """Ends all trackers; what they could not send by then is in `metrics.jsonl`, and sent if the branch is resumed.

        Args:
            finished: Whether the branch is.
        """
        for sender in self._senders:
            sender.end(finished)
        for sender in self._senders:
            sender.join(self._patience)


class _Sender:
    """One tracker and the thread that uses it. A line that cannot be sent is tried again with the next one."""

    def __init__(self, name: str, open_tracker: Callable[[], Tracker]) -> None:
        self._name, self._open, self._warned = name, open_tracker, False
        self._queue: queue.SimpleQueue[Line | bool] = queue.SimpleQueue()
        self._tracker: Tracker | None = None
        self._latest = -1
        self._unsent: list[Line] = []
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def put(self, line: Line) -> None:
        self._queue.put(line)

    def end(self, finished: bool) -> None:
        self._queue.put(finished)

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._warn("did not end in time", f"{len(self._unsent)} lines or more are not sent")

    def _run(self) -> None:
        while not isinstance(item := self._queue.get(), bool):
            self._unsent.append(item)
            self._send()
        self._send()
        try:
            if self._tracker is not None:
                self._tracker.close(finished=item)
        except Exception as error:
            self._warn("cannot end", str(error))

    def _send(self) -> None:
        """Sends what is not sent, as far as it goes."""
        try:
            if self._tracker is None:
                self._tracker = self._open()
                self._latest = self._tracker.latest
            while self._unsent:
                line = self._unsent[0]
                if line["step"] > self._latest:
                    self._tracker.log(line["step"], flat_values(line))
                del self._unsent[0]
        except Exception as error:  # a library's own errors, of the network, of a login, of a full disk
            if not self._warned:
                self._warn("fails", f"{type(error).__name__}: {error}")
            self._warned = True

    def _warn(self, what: str, reason: str) -> None:
        log.warning(
            "tracker %s %s (%.300s); training goes on, and metrics.jsonl has every line", self._name, what, reason
        )
