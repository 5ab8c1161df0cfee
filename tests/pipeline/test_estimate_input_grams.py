"""Merging by RegMean: Gram matrices of inputs, taken once for each branch on its own data, kept beside it, and used."""

from pathlib import Path

import numpy as np
import pytest

from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.core import tree
from merit_jax.data.bucketing import bucketed_batches, calibration_examples
from merit_jax.merging import MERGERS
from merit_jax.pipeline.estimate_input_grams import input_grams
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.stages import run_stages
from merit_jax.workdir.artifacts import read_json, write_json
from tests.support import world


def by_regmean(run):
    """The run, merging by RegMean."""
    with run.config.unlocked():
        run.config.merge.update({"method": "regmean", "options": '{"alpha": 0.8}'})
    return run


@pytest.fixture(scope="module")
def merged(finished, tmp_path_factory):
    """A finished run whose branches are merged again, by RegMean."""
    run = by_regmean(world.copied(finished, tmp_path_factory.mktemp("regmean"), overwrite=True))
    assert run_stages(run, ("merge",))
    return run


def trained(run, k):
    return world.host(OrbaxLeaves(params_directory(run.workdir.branch(k) / "checkpoints")))


def test_they_are_of_the_branch_on_its_own_calibration_examples(merged):
    """The first layer's, from the embeddings of the tokens that the branch reads; and one for every kernel."""
    known, cfg = {dataset.name: dataset for dataset in merged.datasets}, merged.config.gradients
    examples = [
        example
        for share in load_partition(merged).branches[1].shares
        for example in calibration_examples(known[share.dataset], cfg.examples, merged.config.seed)
    ]
    rows = [batch for _, batch in bucketed_batches(examples, buckets=cfg.buckets, batch_size=1)]
    params = trained(merged, 1)
    tokens = np.concatenate([batch.tokens[np.asarray(batch.segments) > 0] for batch in rows])
    vectors = np.float64(params["embed/embedding"])[tokens]
    inputs = vectors / np.sqrt((vectors**2).mean(-1, keepdims=True) + 1e-6) * params["layers/attention_norm/scale"][0]
    found = world.host(input_grams.leaves(merged, 1))
    for name in ("query", "key", "value"):
        kernel = found[f"layers/attention/{name}/kernel"]
        np.testing.assert_allclose(kernel[0], inputs.T @ inputs / len(inputs), rtol=1e-3, atol=1e-4)
    kernels = {path: leaf for path, leaf in params.items() if path.endswith("kernel")}
    assert {path: leaf.shape[:2] for path, leaf in found.items()} == {
        path: leaf.shape[:2] for path, leaf in kernels.items()
    }


def test_the_merge_is_the_operators_on_them(merged):
    record = read_json(merged.workdir.merge_record)
    thetas = [tree.unflatten(trained(merged, k)) for k in range(4)]
    grams = [tree.unflatten(world.host(input_grams.leaves(merged, k))) for k in range(4)]
    theta0 = tree.unflatten(world.host(merged.theta0.leaves()))
    expected = MERGERS["regmean"](theta0, thetas, record["weights"], statistics=grams, alpha=0.8)
    found = world.host(OrbaxLeaves(merged.workdir.merged_params))
    for path, leaf in tree.flatten(expected).items():
        np.testing.assert_array_equal(found[path], leaf)


def test_the_merged_kernel_fits_the_branches_outputs_better_than_their_average(merged):
    """On the branches' own inputs of the first layer, which the kernels before it do not change."""
    path, weights = "layers/attention/query/kernel", read_json(merged.workdir.merge_record)["weights"]
    kernels = [np.float64(trained(merged, k)[path][0]) for k in range(4)]
    grams = [np.float64(world.host(input_grams.leaves(merged, k))[path][0]) for k in range(4)]

    def misfit(kernel):
        costs = [np.trace((kernel - own).T @ gram @ (kernel - own)) for gram, own in zip(grams, kernels, strict=True)]
        return np.dot(weights, costs)

    average = sum(w * kernel for w, kernel in zip(weights, kernels, strict=True))
    assert misfit(world.host(OrbaxLeaves(merged.workdir.merged_params))[path][0]) < misfit(average)


def test_they_are_taken_once_and_those_of_other_examples_are_refused(merged):
    records = [Path(merged.workdir.branch_input_grams_record(k)) for k in range(4)]
    before = [record.stat().st_mtime_ns for record in records]
    again = by_regmean(world.run(Path(merged.workdir.root).parent, "finished"))
    merged.workdir.merge_record.unlink()
    assert run_stages(again, ("merge",))
    assert [record.stat().st_mtime_ns for record in records] == before
    record = merged.workdir.branch_input_grams_record(0)
    kept = read_json(record)
    write_json(record, {**kept, "inputs": {**kept["inputs"], "examples": 3}})
    merged.workdir.merge_record.unlink()
    with pytest.raises(ValueError, match=r"branches/0/input_grams\.json was made from other inputs: examples: 3 -> 8"):
        run_stages(again, ("merge",))


def test_a_model_that_records_no_inputs_is_refused(finished, tmp_path):
    run = by_regmean(world.copied(finished, tmp_path, overwrite=True))
    model = run.model

    class Other:
        hidden, unembed, init_cache, prefill, decode = (
            model.hidden,
            model.unembed,
            model.init_cache,
            model.prefill,
            model.decode,
        )

    run.shared.model = Other()
    with pytest.raises(ValueError, match="'regmean': the model cannot record the inputs of its kernels"):
        run_stages(run, ("merge",))
