"""`mixture.json`: what there is to train on."""

from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifacts import is_current, write_json


def read_mixture(run: Run) -> bool:
    """Reads every dataset and records its rows, tokens and digest; whether they were not recorded yet."""
    inputs = {
        "text": dict(run.text_inputs),
        "max_held_out": run.config.mixture.max_held_out,
        "datasets": run.digests(),
    }
    if is_current(run.workdir.mixture, inputs, overwrite=run.overwrite):
        return False
    datasets = {
        dataset.name: {
            "samples": len(dataset.train),
            "tokens": dataset.report.tokens,
            "total_tokens": dataset.report.total_tokens,
            "truncated": dataset.report.truncated,
            "held_out": len(dataset.held_out),
            "files": list(dataset.report.files),
        }
        for dataset in run.datasets
    }
    run.on_first_process(lambda: write_json(run.workdir.mixture, {"inputs": inputs, "datasets": datasets}))
    return True
