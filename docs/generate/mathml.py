"""Turns the mathematics of a page into MathML, which browsers show without any script."""

import html
import re

import latex2mathml.converter

MARKED = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
"""Mathematics as the Markdown extension pymdownx.arithmatex marks it."""


def render(page: str) -> str:
    r"""Replaces marked TeX by MathML.

    Args:
        page: HTML of a page.

    Examples:
        >>> render(r'<span class="arithmatex">\\(x\\)</span>').startswith("<math")
        True
    """

    def replaced(match: re.Match[str]) -> str:
        display = "block" if match[1] == "div" else "inline"
        return latex2mathml.converter.convert(html.unescape(match[2]), display=display)

    return MARKED.sub(replaced, page)
