"""Defines the exit codes of commands, apart from `app`: workers of launchers read them without defining its flags.

Python itself ends with 1 for whatever nobody has caught, so no code here is 1: what a command says on purpose cannot be mistaken
for a crash, not even for one that happens before the command has begun. They are those of sysexits.h and of POSIX shells, written
as numbers, since not every system has names for them.
"""

MISTAKE = 65
"""Exit code of a command that fails again unless its user changes something; its message says what."""

FAULT = 74
"""Exit code of a command that the machine has failed (memory, disk, network, ...), or another command: run it again."""

UNFINISHED = 75
"""Exit code of a command that was preempted, or found another process doing its work: run again, it resumes."""

INTERRUPTED = 130
"""Exit code of a command that was interrupted (Ctrl-C) where it had nothing to save, or twice."""

CLOSED = 141
"""Exit code of a command whose reader has gone, as `head` does."""
