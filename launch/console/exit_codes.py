"""Defines the exit codes of commands, apart from `app`: workers of launchers read them without defining its flags.

Python itself ends with 1 for whatever nobody has caught, so no code here is 1: what a command says on purpose cannot be mistaken
for a crash, not even for one that happens before the command has begun.
"""

import os
import signal

MISTAKE = os.EX_DATAERR
"""Exit code (65) of a command that fails again unless its user changes something; its message says what."""

FAULT = os.EX_IOERR
"""Exit code (74) of a command that the machine has failed (memory, disk, network, ...), or another command: run it again."""

UNFINISHED = os.EX_TEMPFAIL
"""Exit code (75) of a command that was preempted, or found another process doing its work: run again, it resumes."""

INTERRUPTED = 128 + signal.SIGINT
"""Exit code (130) of a command that was interrupted (Ctrl-C) where it had nothing to save, or twice."""

CLOSED = 128 + signal.SIGPIPE
"""Exit code (141) of a command whose reader has gone, as `head` does."""
