"""`mixture.json`: the datasets to train on, with their rows, tokens and digests."""

from typing import Any

from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import Stage
from merit_jax.workdir.artifact_types import JsonArtifact


def _inputs(run: Run) -> dict[str, Any]:
    return {
        "text": run.text_inputs,
        "max_held_out": run.config.mixture.max_held_out,
        "datasets": run.digests(),
    }


def _describe(run: Run) -> dict[str, Any]:
    datasets = {
        dataset.name: {
            "samples": len(dataset.train),
            "tokens": dataset.report.tokens,
            "total_tokens": dataset.report.total_tokens,
            "truncated": dataset.report.truncated,
            "unended": dataset.report.unended,
            "unseen": dataset.report.unseen,
            "held_out": len(dataset.held_out),
            "files": list(dataset.report.files),
        }
        for dataset in run.datasets
    }
    return {"datasets": datasets}


read_mixture = Stage(_inputs, _describe, lambda run: JsonArtifact(run.workdir.mixture), name="mixture")
"""Reads every dataset and records what it has."""
