"""Docstrings read alike: a function's begins with a verb, a class's with a noun; every example in them runs and is right."""

import ast
import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("merit_jax", "models", "launch")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

VERB = re.compile(r"[A-Z][a-z-]*[^aeious ]?s\b(?!')")
"""The third person of a verb, as "Returns"."""
NO_OPENING = ("What", "Whether", "How", "Where", "Why", "When")
"""Openings that name a question instead of a thing."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def documented(path: Path) -> Iterator[tuple[str, str, ast.AST]]:
    """Name, docstring and node of everything in a file that has a docstring."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
            yield getattr(node, "name", module_of(path)), text, node


def is_property(node: ast.AST) -> bool:
    names = {getattr(d, "attr", getattr(d, "id", "")) for d in getattr(node, "decorator_list", ())}
    return bool(names & {"property", "cached_property"})


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_a_functions_docstring_begins_with_a_verb(path):
    wrong = {
        name: text.splitlines()[0]
        for name, text, node in documented(path)
        if isinstance(node, Function) and not name.startswith("_") and not is_property(node) and not VERB.match(text)
    }
    assert not wrong


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_no_docstring_begins_with_a_question(path):
    wrong = {name: text.splitlines()[0] for name, text, _ in documented(path) if text.split()[0] in NO_OPENING}
    assert not wrong


WITH_EXAMPLES = [path for path in SOURCES if any("Examples:" in text for _, text, _ in documented(path))]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=module_of)
def test_examples_give_what_they_show(path):
    found = doctest.testmod(importlib.import_module(module_of(path)), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted, "an Examples: block without an example"
    assert not found.failed


def test_many_functions_of_arrays_have_an_example():
    examples = [name for path in SOURCES for name, text, _ in documented(path) if "Examples:" in text]
    assert len(examples) >= 25
