"""Branches that keep Adam's second moment are merged by it; others are refused by the key that they lack."""

from pathlib import Path

import numpy as np
import pytest

from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.configs.schema.check import check
from merit_jax.core import tree
from merit_jax.merging import MERGERS
from merit_jax.pipeline.stages import run_stages
from merit_jax.pipeline.train_branches import branch_second_moment
from merit_jax.workdir.artifacts import read_json
from tests.support import world

KEPT = {"train.keep_second_moment": True}


def by_moment(run):
    """The run, merging by the second moment."""
    with run.config.unlocked():
        run.config.merge.update({"method": "ota_ffg", "options": '{"density": 0.5}'})
    return run


@pytest.fixture(scope="module")
def kept(finished, tmp_path_factory):
    """A run like the finished one, whose branches keep their second moment and are merged by it."""
    run = by_moment(world.copied(finished, tmp_path_factory.mktemp("kept"), overwrite=True, **KEPT))
    run_stages(run, ("train", "merge"))
    return run


def checkpoint(run, k):
    return params_directory(run.workdir.branch(k) / "checkpoints").parent


def test_it_is_kept_with_the_last_checkpoint_under_its_checksums(kept, finished):
    moments, params = world.host(branch_second_moment(kept, 1)), world.host(OrbaxLeaves(checkpoint(kept, 1) / "params"))
    assert {path: leaf.shape for path, leaf in moments.items()} == {path: leaf.shape for path, leaf in params.items()}
    assert all(leaf.min() >= 0 and leaf.max() > 0 for leaf in moments.values())
    recorded = read_json(kept.workdir.branch(1) / "checksums.json")["files"]
    assert any(name.startswith("second_moment/") for name in recorded)
    assert read_json(kept.workdir.branch_done(1))["inputs"]["train"]["keep_second_moment"] is True
    others = world.host(OrbaxLeaves(checkpoint(finished, 1) / "params"))
    for path, leaf in others.items():
        np.testing.assert_array_equal(leaf, params[path])


def test_a_default_branch_records_and_keeps_nothing_of_it(finished):
    assert "keep_second_moment" not in read_json(finished.workdir.branch_done(1))["inputs"]["train"]
    assert sorted(path.name for path in checkpoint(finished, 1).iterdir() if path.is_dir()) == ["params", "progress"]


def test_the_merge_is_the_operators_on_what_the_branches_keep(kept):
    thetas = [tree.unflatten(world.host(OrbaxLeaves(checkpoint(kept, k) / "params"))) for k in range(4)]
    moments = [tree.unflatten(world.host(branch_second_moment(kept, k))) for k in range(4)]
    theta0 = tree.unflatten(world.host(kept.theta0.leaves()))
    expected = MERGERS["ota_ffg"](theta0, thetas, [0.25] * 4, statistics=moments, density=0.5)
    found = world.host(OrbaxLeaves(kept.workdir.merged_params))
    for path, leaf in tree.flatten(expected).items():
        np.testing.assert_array_equal(found[path], leaf)
    record = read_json(kept.workdir.merge_record)
    assert record["weights"] is None
    assert record["options"]["trim_scope"] == "global"


def test_branches_without_it_are_refused_by_the_key(finished, tmp_path):
    run = by_moment(world.copied(finished, tmp_path, overwrite=True))
    missing = r"branches/0/.*second_moment is missing: .* without train\.keep_second_moment; set it to True and delete"
    with pytest.raises(ValueError, match=missing):
        run_stages(run, ("merge",))
    with pytest.raises(ValueError, match=r"merge\.method = 'ota_ffg' needs .* train\.keep_second_moment = True"):
        check(run.config)


def test_a_second_moment_that_was_removed_or_changed_is_refused(kept, tmp_path):
    run = world.copied(kept, tmp_path, **KEPT)
    folder = Path(checkpoint(run, 0)) / "second_moment"
    file = next(path for path in sorted(folder.rglob("*")) if path.is_file())
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"second_moment is damaged \(since it was written, .* has changed\)"):
        branch_second_moment(run, 0)


def test_an_optimizer_without_one_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match=r"train\.keep_second_moment: train\.optimizer 'lion' has no second moment"):
        check(world.config(tmp_path, **{**KEPT, "train.optimizer": "lion"}))
