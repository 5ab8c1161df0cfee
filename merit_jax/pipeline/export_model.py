"""`merged/hf/`: the merged model as a folder that other tools load."""

from collections.abc import Callable

from etils import epath

from merit_jax.evaluation.prompts import stop_tokens
from merit_jax.pipeline.merge_inputs import merged_leaves
from merit_jax.pipeline.merge_record import read_merge
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.run_model_card import merged_card
from merit_jax.pipeline.stage import Stage
from merit_jax.workdir.artifact_types import Exported, verify_export
from merit_jax.workdir.lease import Lease, held


def _export(run: Run, lease: Lease) -> Callable[[epath.Path], None]:
    """Returns a function that writes the folder, with its tokenizer and a model card.

    Raises:
        ValueError: The merged parameters are not as they were written.
    """
    leaves, card, stop = merged_leaves(run.workdir), merged_card(run), stop_tokens(run.tokenizer)

    def write(folder: epath.Path) -> None:
        lease.check()
        run.theta0.export(leaves.read, folder, card, stop)

    return write


export_model = Stage(
    lambda run: read_merge(run)["inputs"],
    _export,
    lambda run: Exported(run.workdir.merged_hf),
    name="export",
    guard=lambda run: held(run.workdir.merge_lease, "the export"),
    check=lambda run: verify_export(run.workdir.merged_hf),
)
"""Exports the merged model in the format of theta0."""
