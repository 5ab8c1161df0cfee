"""The model card of folders merged by name: what was merged, and enough to do it again."""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import yaml

PACKAGES = ("merit-jax", "jax", "numpy", "safetensors")


def folder_card(
    base: str, models: Sequence[str], method: str, weights: Sequence[float], options: Mapping[str, Any]
) -> dict[str, str]:
    """Text files that lie beside the merged weights: file name -> content.

    Args:
        base: theta0, as the user named it.
        models: The models, in the order of `weights`.
        method: Name of the operator.
        weights: One per model.
        options: Every option of the operator.

    Returns:
        `README.md`, the card with a Hugging Face header, and `merit.json`, the same for programs.
    """
    names = [_name(model) for model in models]
    record = {
        "base": _name(base),
        "models": names,
        "weights": list(weights),
        "merge": method,
        "options": dict(options),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
    }
    header = yaml.safe_dump({"base_model": _name(base), "library_name": "transformers", "tags": ["merit", "merge"]})
    rows = "\n".join(f"| {_cell(name)} | {weight:.6g} |" for name, weight in zip(names, weights, strict=True))
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    readme = f"""---
{header}---
# {len(names)} models merged

Merged from models that descend from {_cell(_name(base))}, by `{method}` with the options `{json.dumps(record["options"])}`,
in float32, by merit-jax. Config and tokenizer are the base's.

| model | weight |
|---|---|
{rows}

Versions: {versions}. `merit.json` beside this file has the weights in full precision.
"""
    return {"README.md": readme, "merit.json": json.dumps(record, indent=2) + "\n"}


def _name(folder: str) -> str:
    """The folder's own name, without what leads to it."""
    return folder.rstrip("/").rsplit("/", 1)[-1]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
