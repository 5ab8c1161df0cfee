"""Generates the pages of the Python API: one for the public names, one for each package."""

import importlib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent.name for path in (ROOT / "merit_jax").glob("*/__init__.py"))
"""Packages of merit_jax."""


def public_names() -> str:
    """Writes the page of what `merit_jax` exports."""
    names = getattr(importlib.import_module("merit_jax"), "__all__", ())
    introduction = (
        "# Python API\n\nThe method as functions of arrays. These names are imported from `merit_jax` itself; the pages below "
        "document every package behind them.\n"
    )
    return "\n".join([introduction, *(f"::: merit_jax.{name}\n" for name in names)])


def package(name: str) -> str:
    """Writes the page of one package of merit_jax, a section for each module."""
    folder = ROOT / "merit_jax" / name
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted(folder.rglob("*.py"))
        if path.stem != "__init__"
    ]
    purpose = importlib.import_module(f"merit_jax.{name}").__doc__ or ""
    return "\n".join([f"# merit_jax.{name}\n", purpose.splitlines()[0], "", *(f"::: {module}\n" for module in modules)])
