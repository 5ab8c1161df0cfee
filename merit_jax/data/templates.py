"""What a chat template from elsewhere may do: it is rendered in a sandbox, and must not be a way to fill the memory."""

import functools
import math
import re

import jinja2
from jinja2 import nodes

LARGEST = 10**6
"""Largest whole number in a template, and largest product of constants."""
WIDTH = re.compile(r"%[-+ #0]*\d{7,}|\{\w*:[^\s{}\"']{0,3}\d{7,}")
"""A text that formats a value to millions of characters."""


@functools.lru_cache(maxsize=16)
def check_template(source: str) -> None:
    """Looks at a template before it is compiled, for compiling computes what is constant.

    What needs the conversation to be computed is left to `deadline.bounded`.

    Raises:
        ValueError: It is no Jinja template, or has a power, a large number or a large product in it.
    """
    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(source)
        reason = next(filter(None, map(_objection, tree.find_all((nodes.Pow, nodes.Mul, nodes.Const)))), None)
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"the chat template is damaged at line {error.lineno} ({error.message}); mend it") from None
    except (RecursionError, ValueError) as error:
        raise ValueError(f"the chat template cannot be parsed ({type(error).__name__}: {error}); mend it") from None
    if reason:
        raise ValueError(f"the chat template has {reason}, which no conversation needs; mend it")


def _objection(node: nodes.Node) -> str | None:
    if isinstance(node, nodes.Pow):
        return f"a power at line {node.lineno}"
    if isinstance(node, nodes.Mul):
        return f"a product of more than {LARGEST} at line {node.lineno}" if _size(node) > LARGEST else None
    value = node.value if isinstance(node, nodes.Const) else None
    large = (isinstance(value, int) and abs(value) > LARGEST) or (isinstance(value, str) and WIDTH.search(value))
    return f"a number above {LARGEST} at line {node.lineno}" if large else None


def _size(node: nodes.Node) -> int:
    """At least the length, or the size, of a product of constants; 1 for what is none."""
    if isinstance(node, nodes.Const):
        value = node.value
        return max(1, len(value) if isinstance(value, str) else abs(value) if isinstance(value, int) else 1)
    return math.prod(map(_size, node.iter_child_nodes()))
