"""Prepares a chat template's source: signs around its `{% generation %}` blocks, and one date for all of its renderings."""

import datetime
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

OPEN, CLOSE = "\ue000generation\ue001", "\ue000endgeneration\ue001"
"""Signs that stand for `{% generation %}` and `{% endgeneration %}` in a rendered text."""

CLOCK = "strftime_now"
"""The function that gives templates the current date and time."""
DIRECTIVES = "aAbBcdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ"
_DATED = re.compile(r"\{# merit_jax: (\d{4}-\d\d-\d\d) #\}")


def template_of(tokenizer: Any, tools: Sequence[Mapping[str, Any]] | None, where: str) -> str:
    """Returns the tokenizer's chat template for conversations with these tools.

    Raises:
        ValueError: There is none.
    """
    try:
        return tokenizer.get_chat_template(**({} if tools is None else {"tools": [dict(tool) for tool in tools]}))
    except ValueError as error:
        folder = str(getattr(tokenizer, "name_or_path", "") or "the model's folder")
        raise ValueError(
            f"{where}: the tokenizer has no chat template; put chat_template.jinja into {folder} (or `chat_template` into its "
            "tokenizer_config.json)"
        ) from error


@functools.lru_cache(maxsize=16)
def mark_generation(template: str) -> str | None:
    """Replaces `{% generation %}` tags by signs that can be found in the rendered text; None without such a tag.

    The library's own assistant mask is one of tokens of the whole text, where a token may straddle the boundary; this
    one is of characters.
    """
    for tag, sign in (("generation", OPEN), ("endgeneration", CLOSE)):
        block = r"{%\1 if true %}{{ '" + sign + r"' }}{% endif \2%}"
        template, found = re.subn(rf"{{%([-+]?)\s*{tag}\s*([-+]?)%}}", block, template)
        if not found:
            return None
    return template


def fix_date(tokenizer: Any, date: datetime.date) -> None:
    """Lets the chat template render a fixed date, at midnight, for the current one; no change to one that shows no date.

    The date is then part of the template's source, so of `chat_template.tokenizer_digest` too.

    Args:
        tokenizer: A `chat_template.Tokenizer`; its template is replaced.
        date: The date.
    """
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of an image tokenizer, the one that has the template
    template = tokenizer.chat_template
    if isinstance(template, dict):
        tokenizer.chat_template = {name: _with_date(source, date) for name, source in template.items()}
    elif template is not None:
        tokenizer.chat_template = _with_date(template, date)


def fixed_date(tokenizer: Any) -> str | None:
    """Returns the date of `fix_date`, as YYYY-MM-DD; None for a template that shows no date."""
    found = _DATED.search(str(tokenizer.chat_template))
    return found[1] if found else None


def shows_date(tokenizer: Any) -> bool:
    """Returns whether the chat template asks for the date."""
    return CLOCK in str(tokenizer.chat_template)


def _with_date(template: str, date: datetime.date) -> str:
    """Defines the clock as a macro of the template's own; templates are rendered from plain values, so none can be given."""
    if CLOCK not in template or _DATED.search(template):
        return template
    midnight = datetime.datetime.combine(date, datetime.time())
    written = {f"%{letter}": midnight.strftime(f"%{letter}") for letter in DIRECTIVES}
    written |= {f"%-{letter}": midnight.strftime(f"%{letter}").lstrip("0") or "0" for letter in "dmyHIMSjUWe"}
    replaced = "".join(f" | replace({key!r}, {value!r})" for key, value in written.items())
    body = "{{ format | replace('%%', '\ue002')" + replaced + " | replace('\ue002', '%') }}"
    return f"{{% macro {CLOCK}(format) %}}{{# merit_jax: {date} #}}{body}{{% endmacro %}}\n{template}"
