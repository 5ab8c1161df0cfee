"""`losses.json` of a pilot: the loss of each merged model on examples of every dataset."""

from collections.abc import Mapping
from typing import Any

from merit_jax.diagnostics.mean_loss import mean_loss
from merit_jax.pipeline.diagnostics.models import Models
from merit_jax.pipeline.diagnostics.samples import Sample
from merit_jax.pipeline.merge_inputs import merged_leaves
from merit_jax.pipeline.merge_record import branch_cosine, read_merge
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import Stage
from merit_jax.workdir.artifact_types import JsonArtifact
from merit_jax.workdir.artifacts import plain
from merit_jax.workdir.checksums import fingerprint


def measure_pilot(run: Run, merged: Mapping[str, Run]) -> dict[str, dict[str, Any]]:
    """Returns, per method of a pilot, the mean `cosine` of its branches' task vectors and the `loss` of its merged model.

    Args:
        run: The pilot; `losses.json` is in its workdir.
        merged: Method -> its run, which is merged.

    Raises:
        ValueError: A merge is missing, or was made from other inputs.
    """
    records = {method: read_merge(other) for method, other in merged.items()}
    stage = Stage(
        lambda run: {
            **Sample(run, run.config.diagnostics.examples).inputs,
            "merged": {method: fingerprint(plain(record["inputs"])) for method, record in records.items()},
        },
        lambda run: {"losses": _losses(run, merged)},
        lambda run: JsonArtifact(run.workdir.root / "losses.json"),
        command="merit advise --pilot",
    )
    stage(run)
    losses = stage.read(run)["losses"]
    return {method: {"cosine": branch_cosine(record), "loss": losses[method]} for method, record in records.items()}


def _losses(run: Run, merged: Mapping[str, Run]) -> dict[str, float]:
    batches = Sample(run, run.config.diagnostics.examples).batches(lambda count: None)
    loss = mean_loss(run.loss_fn, batches)
    models = Models(run, {method: merged_leaves(other.workdir) for method, other in merged.items()})
    return {method: loss(models[method]) for method in models}
