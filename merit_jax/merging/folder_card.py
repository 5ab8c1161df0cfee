"""The model card of folders merged by name: what was merged, and enough to do it again."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from merit_jax.merging.model_card import cell, folder_name, header, listed, versions

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
    names = [folder_name(model) for model in models]
    record = {
        "base": folder_name(base),
        "models": names,
        "weights": list(weights),
        "merge": method,
        "options": dict(options),
        "versions": versions(PACKAGES),
    }
    rows = "\n".join(f"| {cell(name)} | {weight:.6g} |" for name, weight in zip(names, weights, strict=True))
    readme = f"""---
{header(record["base"])}---
# {len(names)} models merged

Merged from models that descend from {cell(record["base"])}, by `{method}` with the options `{json.dumps(record["options"])}`,
in float32, by merit-jax. Config and tokenizer are the base's.

| model | weight |
|---|---|
{rows}

Versions: {listed(record["versions"])}. `merit.json` beside this file has the weights in full precision.
"""
    return {"README.md": readme, "merit.json": json.dumps(record, indent=2) + "\n"}
