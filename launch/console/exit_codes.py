"""Defines the exit codes of commands, apart from `app`: workers of launchers read them without defining its flags."""

import os

MISTAKE = 1
"""Exit code of a command that fails again unless its user changes something; its message says what."""

UNFINISHED = os.EX_TEMPFAIL
"""Exit code (75) of a command that was preempted, or found another process doing its work: run again, it resumes."""
