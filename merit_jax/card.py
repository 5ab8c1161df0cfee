"""The model card of a merged model: what it is made of, and enough to make it again."""

import json
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import yaml

from merit_jax.run import Run
from merit_jax.stages.partition import load_plan
from merit_jax.workdir import read_json

PACKAGES = ("merit-jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "numpy")


def model_card(run: Run, inputs: Mapping[str, Any]) -> dict[str, str]:
    """Text files that lie beside the weights: file name -> content.

    Args:
        run: The run.
        inputs: What the merge was made from.

    Returns:
        `README.md`, the card with a Hugging Face header, and `merit.json`, the same for programs.
    """
    merge, plan = read_json(run.workdir.merge_record), load_plan(run)
    record = {
        "inputs": inputs,
        "method": run.config.method or run.config.partition.method,
        "partition": plan.to_dict(),
        "merge": {key: merge[key] for key in ("method", "tokens", "weights")},
        "config": json.loads(run.config.to_json()),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
    }
    return {"README.md": _readme(run, record), "merit.json": json.dumps(record, indent=2) + "\n"}


def _readme(run: Run, record: Mapping[str, Any]) -> str:
    name = run.config.model.path.rstrip("/").rsplit("/", 1)[-1]
    header = yaml.safe_dump(
        {"base_model": name, "library_name": "transformers", "tags": ["merit", "merge"], "datasets": run.names}
    )
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    return f"""---
{header}---
# {name}, fine-tuned by MERIT

{len(record["merge"]["weights"])} copies of `{name}` were fine-tuned apart from each other, each on its own part of
{len(run.names)} instruction datasets, and averaged once (Choi & Kim, *Decentralized Instruction Tuning: Conflict-Aware
Splitting and Weight Merging*, ICML 2026, arXiv:2606.01717).

* Split: `{record["partition"]["method"]}`; merge: `{record["merge"]["method"]}`; seed: {run.config.seed}.
* theta0 fingerprint: `{record["inputs"]["theta0"]}`.

| branch | weight | supervised tokens | datasets |
|---|---|---|---|
{_rows(record)}

Versions: {versions}.

`merit.json` beside this file has the whole configuration, the partition and the weights in full precision.
"""


def _rows(record: Mapping[str, Any]) -> str:
    branches, merge = record["partition"]["branches"], record["merge"]
    return "\n".join(
        f"| {index} | {weight:.4f} | {tokens} | {', '.join(_share(*share) for share in branch['shares'])} |"
        for index, (branch, weight, tokens) in enumerate(zip(branches, merge["weights"], merge["tokens"], strict=True))
    )


def _share(dataset: str, part: int, parts: int) -> str:
    name = dataset.replace("|", "\\|")
    return name if parts == 1 else f"{name} ({part + 1} of {parts})"
