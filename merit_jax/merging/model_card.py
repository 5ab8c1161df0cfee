"""The parts that the model cards of runs and of merged folders have in common."""

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import yaml


def folder_name(path: str) -> str:
    """A folder's own name, without what leads to it."""
    return path.rstrip("/").rsplit("/", 1)[-1]


def cell(text: str) -> str:
    """A text in a cell of a Markdown table."""
    return text.replace("|", "\\|")


def header(base: str, **more: Any) -> str:
    """The YAML of a card's Hugging Face header, with further keys."""
    return yaml.safe_dump({"base_model": base, "library_name": "transformers", "tags": ["merit", "merge"], **more})


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The versions of Python and of packages; "source" for one that runs from its source folder without being installed."""

    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "source"

    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def listed(found: Mapping[str, str]) -> str:
    """Versions in a sentence."""
    return ", ".join(f"{package} {version}" for package, version in found.items())
