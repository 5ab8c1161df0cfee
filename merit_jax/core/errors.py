"""The error of work that is stopped and can be resumed."""


class UnfinishedError(Exception):
    """The work was preempted and has saved its state, or another process is doing it; run again to resume."""
