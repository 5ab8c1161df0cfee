"""Merging by Fisher information: estimated once for each branch on its own data, kept beside it, and used."""

from pathlib import Path

import jax
import numpy as np
import pytest

from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.core import tree
from merit_jax.core.types import DatasetSlice
from merit_jax.data.bucketing import bucketed_batches, calibration_examples
from merit_jax.data.sampler import share_indices
from merit_jax.pipeline.estimate_fisher import fisher
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.stages import run_stages
from merit_jax.workdir.artifacts import read_json, write_json
from tests.support import world


def by_fisher(run):
    """The run, merging by Fisher information."""
    with run.config.unlocked():
        run.config.merge.method = "fisher"
    return run


@pytest.fixture(scope="module")
def merged(finished, tmp_path_factory):
    """A finished run whose branches are merged again, by Fisher information."""
    run = by_fisher(world.copied(finished, tmp_path_factory.mktemp("fisher"), overwrite=True))
    assert run_stages(run, ("merge",))
    return run


def trained(run, k):
    return world.host(OrbaxLeaves(params_directory(run.workdir.branch(k) / "checkpoints")))


def test_it_is_taken_at_the_branch_on_its_own_calibration_examples(merged):
    """Against one gradient per example, squared in numpy."""
    known, cfg = {dataset.name: dataset for dataset in merged.datasets}, merged.config.gradients
    examples = [
        example
        for share in load_partition(merged).branches[1].shares
        for example in calibration_examples(known[share.dataset], cfg.examples, merged.config.seed)
    ]
    params = tree.unflatten(trained(merged, 1))
    loss = lambda params, row: (lambda nll, tokens: (nll / tokens).sum())(*merged.loss_fn(params, row))  # noqa: E731
    gradient = jax.jit(jax.grad(loss))
    rows = [batch for _, batch in bucketed_batches(examples, buckets=cfg.buckets, batch_size=1)]
    squares = [world.host(jax.tree.map(np.square, gradient(params, row))) for row in rows]
    found = world.host(fisher.leaves(merged, 1))
    for path, leaf in found.items():
        mean = np.mean([np.float64(square[path]) for square in squares], axis=0)
        np.testing.assert_allclose(leaf, mean, rtol=1e-3, atol=1e-6 * mean.max())


def test_the_merge_weights_entries_by_tokens_and_information(merged):
    record = read_json(merged.workdir.merge_record)
    thetas, fishers = (
        [trained(merged, k) for k in range(4)],
        [world.host(fisher.leaves(merged, k)) for k in range(4)],
    )
    for path, leaf in world.host(OrbaxLeaves(merged.workdir.merged_params)).items():
        least = 1e-6 * np.mean([fisher[path].mean() for fisher in fishers])
        strengths = [
            weight * np.maximum(np.float64(fisher[path]), least)
            for weight, fisher in zip(record["weights"], fishers, strict=True)
        ]
        expected = sum(s * theta[path] for s, theta in zip(strengths, thetas, strict=True)) / sum(strengths)
        np.testing.assert_allclose(leaf, expected, atol=1e-5)


def test_it_is_estimated_once(merged):
    before = [Path(merged.workdir.branch_fisher_record(k)).stat().st_mtime_ns for k in range(4)]
    again = by_fisher(world.run(Path(merged.workdir.root).parent, "finished"))
    merged.workdir.merge_record.unlink()
    assert run_stages(again, ("merge",))
    assert [Path(merged.workdir.branch_fisher_record(k)).stat().st_mtime_ns for k in range(4)] == before


def test_what_was_estimated_on_other_examples_is_refused(merged):
    record = merged.workdir.branch_fisher_record(0)
    kept = read_json(record)
    write_json(record, {**kept, "inputs": {**kept["inputs"], "examples": 3}})
    merged.workdir.merge_record.unlink()
    try:
        with pytest.raises(ValueError, match=r"branches/0/fisher\.json was made from other inputs: examples: 3 -> 8"):
            run_stages(by_fisher(world.run(Path(merged.workdir.root).parent, "finished")), ("merge",))
    finally:
        write_json(record, kept)


def test_examples_of_a_slice_are_the_slices_own(finished):
    dataset = finished.datasets[0]
    chosen = calibration_examples(dataset, 1000, 0, DatasetSlice(dataset.name, 1, 2))
    own = sorted(share_indices(len(dataset.train), DatasetSlice(dataset.name, 1, 2), 0).tolist())
    assert [e.tokens.tolist() for e in chosen] == [dataset.train[i].tokens.tolist() for i in own]
