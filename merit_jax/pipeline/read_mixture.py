"""`mixture.json`: the datasets to train on, with their rows, tokens and digests."""

from collections.abc import Mapping
from typing import Any

from merit_jax.core.types import Dataset
from merit_jax.data.elsewhere import ELSEWHERE, RowsElsewhere, describe, elsewhere_inputs
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import ExtendableStage
from merit_jax.workdir.artifact_types import JsonArtifact

SKIPPED = "skipped"
"""Key of the list of rows that were left out, of a dataset, or of none."""


def weight_inputs(run: Run) -> dict[str, Any]:
    """Returns what an artifact records, beside the datasets, that counts how often examples are visited."""
    weights = {dataset.name: dataset.weight for dataset in run.datasets if dataset.weight != 1}
    return {"weights": weights} if weights else {}


def _inputs(run: Run) -> dict[str, Any]:
    return {
        "text": run.text_inputs,
        "max_held_out": run.config.mixture.max_held_out,
        "datasets": run.digests(),
        **elsewhere_inputs(run.datasets),
        **weight_inputs(run),
    }


def _is_of_those_here(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Returns whether a record is of those of these datasets that are here, and otherwise from the same inputs."""
    away = new.get(ELSEWHERE, ())
    own = {name: digest for name, digest in new["datasets"].items() if name not in away}
    return bool(away) and old == {**{key: value for key, value in new.items() if key != ELSEWHERE}, "datasets": own}


def _describe(dataset: Dataset) -> dict[str, Any]:
    if isinstance(dataset.train, RowsElsewhere):
        return {**describe(dataset), "site": dataset.train.site}
    report = dataset.report
    skipped = [{"where": row.where, "reason": row.reason} for row in report.skipped if row.placed]
    return {
        **describe(dataset),
        "held_out": len(dataset.held_out),
        "files": list(report.files),
        **({"from": report.origin} if report.origin else {}),
        **({SKIPPED: skipped} if skipped else {}),
    }


def _content(run: Run) -> dict[str, Any]:
    """Describes the datasets, with every row that was skipped; those that say no dataset come last."""
    unplaced = [row for dataset in run.datasets for row in dataset.report.skipped if not row.placed]
    described = {dataset.name: _describe(dataset) for dataset in run.datasets}
    rest = {SKIPPED: [{"where": row.where, "reason": row.reason} for row in unplaced]} if unplaced else {}
    return {"datasets": described, **rest}


read_mixture = ExtendableStage(
    _inputs,
    lambda run, inputs, part: _content(run),
    lambda run: JsonArtifact(run.workdir.mixture),
    name="mixture",
    extends=_is_of_those_here,
)
"""Reads every dataset and records what it has; a record of what is here is extended by what turns out to be elsewhere."""
