"""`mixture.json`: the datasets to train on, with their rows, tokens and digests."""

from collections.abc import Mapping
from typing import Any

from merit_jax.core.types import Dataset
from merit_jax.data.elsewhere import ELSEWHERE, RowsElsewhere, describe, elsewhere_inputs
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import ExtendableStage
from merit_jax.workdir.artifact_types import JsonArtifact


def _inputs(run: Run) -> dict[str, Any]:
    return {
        "text": run.text_inputs,
        "max_held_out": run.config.mixture.max_held_out,
        "datasets": run.digests(),
        **elsewhere_inputs(run.datasets),
    }


def _is_of_those_here(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Returns whether a record is of those of these datasets that are here, and otherwise from the same inputs."""
    away = new.get(ELSEWHERE, ())
    own = {name: digest for name, digest in new["datasets"].items() if name not in away}
    return bool(away) and old == {**{key: value for key, value in new.items() if key != ELSEWHERE}, "datasets": own}


def _describe(dataset: Dataset) -> dict[str, Any]:
    if isinstance(dataset.train, RowsElsewhere):
        return {**describe(dataset), "site": dataset.train.site}
    return {**describe(dataset), "held_out": len(dataset.held_out), "files": list(dataset.report.files)}


read_mixture = ExtendableStage(
    _inputs,
    lambda run, inputs, part: {"datasets": {dataset.name: _describe(dataset) for dataset in run.datasets}},
    lambda run: JsonArtifact(run.workdir.mixture),
    name="mixture",
    extends=_is_of_those_here,
)
"""Reads every dataset and records what it has; a record of what is here is extended by what turns out to be elsewhere."""
