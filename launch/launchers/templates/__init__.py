"""Renders the files that launchers write, each from a template in its own language."""

import json
import shlex
from typing import Any

import jinja2

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader(__name__, "."),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,
)
_ENVIRONMENT.filters.update({"quote": shlex.quote, "json": json.dumps})


def render(template: str, **values: Any) -> str:
    """Returns a file made from its template.

    Args:
        template: Its name, without ".j2".
        values: Its variables; the filter `quote` makes a word of a shell of a text, `json` a scalar or list of YAML.
    """
    return _ENVIRONMENT.get_template(f"{template}.j2").render(**values)
