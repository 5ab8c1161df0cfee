"""Names and paths from outside: which characters they may not have, how they are shown, and how they are matched."""

import re
from fnmatch import fnmatchcase

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Characters that command a terminal, or end a line in a script, YAML or JavaScript."""

HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Those, marks that turn the direction of writing, and halves of surrogate pairs."""


def has_control(text: str) -> bool:
    """Returns whether a text has a control character, line breaks and tabs included."""
    return CONTROL.search(text) is not None


def visible(text: str, keep: str = "") -> str:
    r"""Returns a text whose control characters are written out.

    Args:
        text: The text.
        keep: Control characters that stay, as "\n" in a message of several lines.

    Examples:
        >>> visible("a\x1b[31mb\n")
        'a\\x1b[31mb\\n'
    """
    return HIDDEN.sub(lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode(), text)


def matches(name: str, pattern: str) -> bool:
    """Returns whether a pattern means a name: it is the name, or an fnmatch pattern that the name fits.

    Examples:
        >>> matches("qa[1]", "qa[1]"), matches("qa1", "qa[12]"), matches("QA1", "qa*")
        (True, True, False)
    """
    return name == pattern or fnmatchcase(name, pattern)
