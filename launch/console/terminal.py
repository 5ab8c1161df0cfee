"""The terminal: everything that commands print goes through it, with the control characters of names written out."""

import errno
import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.text import Text

from merit_jax.core.text import visible

WIDTH = 140
"""Characters of a line where the output is no terminal."""


class Terminal(Console):
    """A rich console that shows control characters instead of sending them, whatever text they are in."""

    def on_broken_pipe(self) -> None:
        """Raises anew what Rich has caught, which would end the command with exit code 1."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def render_str(self, text: str, **options: Any) -> Text:
        """Makes a text of a string, before a table measures it; see `rich.console.Console.render_str`."""
        return super().render_str(visible(text, keep="\n"), **options)

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Renders text and tables; see `rich.console.Console.render`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text, keep="\n"))


def terminal(*, stderr: bool = False, **options: Any) -> Terminal:
    """Returns a console on standard output or standard error, `WIDTH` wide where that is a file or a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    return Terminal(stderr=stderr, width=None if stream.isatty() else WIDTH, **options)
