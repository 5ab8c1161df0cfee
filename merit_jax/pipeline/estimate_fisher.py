"""`branches/<k>/fisher/`: the diagonal Fisher information of a branch on its own data, for merging by it."""

from collections.abc import Iterator
from typing import Any

from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.checkpoints.readers import OrbaxLeaves, OverlayLeaves, TreeLeaves
from merit_jax.checkpoints.writer import write_streamed
from merit_jax.core import sharding
from merit_jax.core.types import Batch, Branch, Leaves
from merit_jax.data.bucketing import bucketed_batches, calibration_examples
from merit_jax.gradients.fisher import diagonal_fisher
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.train_branches import branch_inputs
from merit_jax.workdir.artifacts import is_current, read_json, write_json
from merit_jax.workdir.checksums import file_checksums, fingerprint, verify_checksums


def estimate_fisher(run: Run, index: int) -> bool:
    """Estimates the Fisher information of a finished branch, at its own parameters and on its own calibration examples.

    At most `gradients.examples` examples of each of its datasets, drawn as for the gradients; of a slice of a dataset, the
    slice's only.

    Returns:
        Whether there was anything to do.

    Raises:
        ValueError: The branch is unfinished, or it was estimated from other inputs.
    """
    branch = load_partition(run).branches[index]
    inputs = {"branch": fingerprint(branch_inputs(run, branch)), "examples": run.config.gradients.examples}
    if is_current(run.workdir.branch_fisher_record(index), inputs, overwrite=run.overwrite):
        return False
    trained = OrbaxLeaves(params_directory(run.workdir.branch(index) / "checkpoints"))
    found = diagonal_fisher(
        run.loss_fn,
        run.place(OverlayLeaves(run.theta0.leaves(), trained)),
        _batches(run, branch),
        trainable=run.config.train.trainable,
        place=run.place_batch,
    )
    host = {path: sharding.to_host(leaf) for path, leaf in found.items()}
    run.on_first_process(lambda: _write(run, index, inputs, host))
    return True


def fisher_leaves(run: Run, index: int) -> OrbaxLeaves:
    """The Fisher information of a branch, leaf by leaf.

    Raises:
        ValueError: It is missing, or not as it was written.
    """
    directory, record = run.workdir.branch_fisher(index), read_json(run.workdir.branch_fisher_record(index))
    if "files" in record:
        verify_checksums(directory, record["files"])
    return OrbaxLeaves(directory)


def _batches(run: Run, branch: Branch) -> Iterator[Batch]:
    cfg, known = run.config.gradients, {dataset.name: dataset for dataset in run.datasets}
    for share in branch.shares:
        examples = calibration_examples(known[share.dataset], cfg.examples, run.config.seed, share)
        batches = bucketed_batches(
            examples,
            buckets=cfg.buckets,
            batch_size=cfg.batch_size,
            reader=run.reader,
            image_buckets=cfg.image_buckets,
        )
        yield from (batch for _, batch in batches)


def _write(run: Run, index: int, inputs: dict[str, Any], leaves: Leaves) -> None:
    """The leaves, then the record that they are whole."""
    record, out = run.workdir.branch_fisher_record(index), run.workdir.branch_fisher(index)
    record.unlink(missing_ok=True)
    if out.exists():
        out.rmtree()
    reader = TreeLeaves(leaves)
    write_streamed(out, reader.paths(), reader.read)
    write_json(record, {"inputs": inputs, "files": file_checksums(out)})
