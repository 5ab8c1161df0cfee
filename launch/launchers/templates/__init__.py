"""Renders the files that launchers write, each from a template in its own language."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import yaml

from merit_jax.core.text import has_control, visible

PLAIN = re.compile(r"[\w@%+=:,./-]+")
"""A word that Slurm takes as it is."""

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader(__name__, "."),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,
)


def render(template: str, **values: Any) -> str:
    """Returns a file made from its template.

    Args:
        template: Its name, without ".j2".
        values: Its variables; the filter `quote` makes a word of a shell of a text, `directive` a word of an #SBATCH line,
            `yaml` a scalar or list of YAML.

    Raises:
        ValueError: A text in the variables has a control character, as a line break, which would end its line in the file.
    """
    _refuse_control(template, values)
    return _ENVIRONMENT.get_template(f"{template}.j2").render(**values)


def _refuse_control(template: str, part: Any) -> None:
    if isinstance(part, str) and has_control(part):
        raise ValueError(
            f"{template}: '{visible(part):.200}' has a control character; take it out of the path or option"
        )
    if isinstance(part, Mapping):
        part = list(part.values())
    if isinstance(part, Sequence) and not isinstance(part, str):
        for inner in part:
            _refuse_control(template, inner)


def _directive(text: str) -> str:
    """A word of a line #SBATCH, which Slurm reads as words with double quotes and backslashes."""
    if PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'


def _yaml(value: Any) -> str:
    """A value of YAML in one line, with quotes around every text."""
    style = '"' if isinstance(value, str | list) else None
    text = yaml.safe_dump(value, default_flow_style=True, default_style=style, allow_unicode=True, width=float("inf"))
    return text.removesuffix("...\n").strip()


_ENVIRONMENT.filters.update({"quote": shlex.quote, "directive": _directive, "yaml": _yaml})
