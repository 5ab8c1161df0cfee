"""Names reach a terminal as text: what would command it is written out, in tables, messages and logs."""

import io
import logging

from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from merit_jax.launch.console.terminal import Terminal

EVIL = "birds\x1b[2J[red]"


def printed(*parts, **options):
    stream = io.StringIO()
    Terminal(file=stream, force_terminal=True, color_system="truecolor", width=60, highlight=False).print(
        *parts, **options
    )
    return stream.getvalue()


def test_a_message_shows_control_characters_and_keeps_its_lines_and_its_colour():
    text = printed(f"error: {EVIL}\nmend it", markup=False, highlight=False, style="red")
    assert "\x1b[31m" in text
    assert "\x1b[2J" not in text
    assert r"birds\x1b[2J[red]" in text.replace("\x1b[0m", "").replace("\x1b[31m", "")
    assert text.count("\n") == 2


def test_a_cell_of_a_table_stays_in_its_line_and_frame():
    table = Table("dataset", "rows")
    table.add_row(escape(EVIL), "3")
    table.add_row("plain", "4")
    lines = printed(table).splitlines()
    assert any(r"birds\x1b[2J[red]" in line for line in lines)
    assert "\x1b[2J" not in "".join(lines)
    assert len(lines) == 6


def test_a_log_line_shows_them():
    stream = io.StringIO()
    handler = RichHandler(console=Terminal(file=stream, width=200), show_path=False)
    handler.emit(logging.LogRecord("merit_jax", logging.INFO, "", 0, "reading %s", (EVIL,), None))
    assert "\x1b" not in stream.getvalue()
    assert r"birds\x1b[2J" in stream.getvalue()
