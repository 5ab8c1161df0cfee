"""Exports the merged model as a Hugging Face folder."""

from merit_jax.pipeline.merge_inputs import merged_leaves
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.run_model_card import merged_card
from merit_jax.workdir.artifacts import is_current, read_json
from merit_jax.workdir.lease import held


def export_model(run: Run) -> bool:
    """Writes the merged model as a folder that other tools load, with its tokenizer and a model card.

    Raises:
        ValueError: The merged parameters are not as they were written.
        UnfinishedError: Another process is merging or exporting.
    """
    out = run.workdir.merged_hf
    inputs = read_json(run.workdir.merge_record)["inputs"]
    if is_current(out / "merit.json", inputs, overwrite=run.overwrite):
        return False
    with held(run.workdir.merge_lease, "the export"):
        leaves = merged_leaves(run.workdir)
        if out.exists():
            run.on_first_process(out.rmtree)
        run.on_first_process(lambda: run.theta0.export(leaves.read, out, merged_card(run)))
    return True
