"""How a command of this package ends when it does not end well; engines and drivers go by it."""

import os

MISTAKE = 1
"""Exit code of a command that its user must change something for: it says what, and trying again is no use."""

UNFINISHED = os.EX_TEMPFAIL
"""Exit code (75) of a command that was told to stop, or found another process at its work: started again, it carries on."""
