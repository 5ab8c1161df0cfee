"""Generates the pages of the Python API: a table of the public names, and a page for each package."""

import ast
import importlib
import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.generate.commands import cell

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent.name for path in (ROOT / "merit_jax").glob("*/__init__.py"))
"""Packages of merit_jax."""

INTRODUCTION = """# Python API

The method is a set of functions of arrays and of nested dicts of arrays. These names can be imported from `merit_jax` itself:

    from merit_jax import dataset_gradients, cosine_similarity, principal_axes, PARTITIONERS, MERGERS

| name | |
|---|---|
"""

PAGES = "\nThe package pages document every module: " + ", ".join(f"[{name}]({name}.md)" for name in PACKAGES) + ".\n"


def public_names() -> str:
    """Writes the page of what `merit_jax` exports, each name with a link to its documentation."""
    package = importlib.import_module("merit_jax")
    rows = []
    for name in package.__all__:
        value = getattr(package, name)
        home = _home(value) or _owner(f"merit_jax.{package._HOMES[name]}", name)
        summary = (
            inspect.getdoc(value) if inspect.isroutine(value) or inspect.isclass(value) else _string_after(home, name)
        )
        rows.append(f"| [`{name}`][{home}.{name}] | {cell((summary or '').partition(chr(10))[0])} |")
    return INTRODUCTION + "\n".join(rows) + "\n" + PAGES


def package(name: str) -> str:
    """Writes the page of one package of merit_jax: what its `__init__` defines, then a section for each module."""
    folder = ROOT / "merit_jax" / name
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted(folder.rglob("*.py"))
        if path.stem != "__init__"
    ]
    purpose = importlib.import_module(f"merit_jax.{name}").__doc__ or ""
    own = [entry for entry in _defined(folder / "__init__.py") if not entry.startswith("_")]
    first = (
        [f"::: merit_jax.{name}\n    options:\n      members: {own}\n"] if own else [purpose.partition("\n")[0] + "\n"]
    )
    return "\n".join([f"# merit_jax.{name}\n", *first, *(f"::: {module}\n" for module in modules)])


def _home(value: Any) -> str:
    """The module that defines a function or class; empty for anything else."""
    return value.__module__ if inspect.isroutine(value) or inspect.isclass(value) else ""


def _owner(module: str, name: str) -> str:
    """The module that defines a name which a module has, perhaps by import."""
    for node in ast.parse(inspect.getsource(importlib.import_module(module))).body:
        if isinstance(node, ast.ImportFrom) and node.module and name in {alias.name for alias in node.names}:
            return _owner(node.module, name)
    return module


def _string_after(module: str, name: str) -> str:
    """The string below the assignment of a name: its documentation."""
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    for node, after in itertools.pairwise(body):
        if name in _targets(node) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            return str(after.value.value)
    return ""


def _defined(path: Path) -> Iterator[str]:
    """Names that a file assigns or defines itself."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        yield from _targets(node)


def _targets(node: ast.AST) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
