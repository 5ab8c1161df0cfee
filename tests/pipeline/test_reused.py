"""What is reused is what it claims to be: every reader compares what an artifact was made from with the run's own inputs."""

import dataclasses
import re
import shutil
from pathlib import Path

import pytest

from merit_jax.launch import export
from merit_jax.pipeline.evaluated_models import evaluated_models
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.project_models import project_models
from merit_jax.pipeline.run_diagnostics import run_diagnostics
from merit_jax.pipeline.run_model_card import branch_card, merged_card
from merit_jax.pipeline.stages import run_stages
from merit_jax.pipeline.train_branches import train_branch
from merit_jax.training.divergence import DivergedError
from merit_jax.workdir.artifacts import read_json, write_json
from tests.support import world


def staged(*names):
    return lambda run: run_stages(run, names)


READERS = {
    "train": staged("train"),
    "branch": lambda run: train_branch(run, 0),
    "merge": staged("merge"),
    "export": staged("export"),
    "project": project_models,
    "evaluate": evaluated_models,
    "diagnose": lambda run: run_diagnostics(run, ["displacement"]),
    "card": merged_card,
    "card of a branch": lambda run: branch_card(run, 0),
    "merit export": lambda run: export.leaves_of(run, 1),
}
"""What reads the partition, or what was made from it."""


@pytest.fixture(scope="module")
def copy(finished, tmp_path_factory):
    """A copy of a finished run that the tests of this module only read."""
    return world.copied(finished, tmp_path_factory.mktemp("read"))


def with_config(run, method="merit2d", **changes):
    root = Path(run.workdir.root).parent
    return dataclasses.replace(run, config=world.config(root, method, **changes))


def flipped(folder, place=-1):
    """Changes one bit of the largest file of a folder."""
    file = max((file for file in Path(folder).rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    content = bytearray(file.read_bytes())
    content[place] ^= 16
    file.write_bytes(content)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("method", "changes", "named"),
    [
        ("random4", {}, 'partition.method: "median_split" -> "random"'),
        ("merit2d", {"mixture.max_train": 5}, "text.max_train: 0 -> 5"),
        ("merit2d", {"gradients.examples": 4}, "gradients.gradients.examples: 8 -> 4"),
    ],
)
def test_a_partition_made_by_another_method_mixture_or_gradients_is_refused(copy, reader, method, changes, named):
    with pytest.raises(ValueError, match=r"was made from other inputs: ") as error:
        READERS[reader](with_config(copy, method, **changes))
    assert named.removeprefix("gradients.") in str(error.value)


@pytest.mark.parametrize("reader", ["train", "export", "merit export"])
def test_a_partition_of_another_theta0_is_refused(finished, tmp_path, reader):
    world.checkpoint(tmp_path / "theta0", seed=1)
    with pytest.raises(ValueError, match=r"was made from other inputs: .*theta0: "):
        READERS[reader](world.copied(finished, tmp_path))


def test_overwrite_makes_artifacts_again_and_does_not_let_others_be_read(copy):
    run = dataclasses.replace(with_config(copy, "random4"), overwrite=True)
    with pytest.raises(ValueError, match=r"partition\.json was made from other inputs: .*merit run --stages=partition"):
        run_stages(run, ("train",))


def test_a_machine_that_has_the_partition_alone_checks_it_too(finished, tmp_path):
    root = world.beside(finished, tmp_path)
    (root / "away").mkdir()
    shutil.copy(finished.workdir.partition, root / "away")
    assert len(load_partition(world.run(root, "away")).branches) == 4
    with pytest.raises(ValueError, match=r"partition\.json was made from other inputs: gradients\.gradients\.examples"):
        load_partition(world.run(root, "away", **{"gradients.examples": 4}))


def test_a_dtype_that_the_machine_chose_is_accepted_and_one_that_the_config_chose_is_compared(finished, tmp_path):
    run = world.copied(finished, tmp_path)
    for path in (run.workdir.partition, run.workdir.conflict.parent / "gradients" / "index.json"):
        record = read_json(path)
        made = record["inputs"].get("gradients") if path == run.workdir.partition else record["inputs"]
        assert made["dtype"] == "float32"
        made["dtype"] = "bfloat16"
        write_json(path, record)
    run.workdir.conflict.unlink()
    assert len(load_partition(run).branches) == 4
    with pytest.raises(ValueError, match=r'gradients\.dtype: "bfloat16" -> "float32"'):
        load_partition(world.copied(finished, tmp_path, **{"model.dtype": "float32"}))


def test_branches_of_two_dtypes_are_not_merged(finished, tmp_path):
    run = world.copied(finished, tmp_path)
    done = read_json(run.workdir.branch_done(2))
    done["inputs"]["dtype"] = "bfloat16"
    write_json(run.workdir.branch_done(2), done)
    with pytest.raises(ValueError, match=r"branch 1 in float32, branch 2 in bfloat16, .*; set model\.dtype"):
        run_stages(run, ("merge",))


def test_exchanged_branches_are_refused(finished, tmp_path):
    run = world.copied(finished, tmp_path)
    for source, target in (("0", "x"), ("1", "0"), ("x", "1")):
        Path(run.workdir.root / "branches" / source).rename(run.workdir.root / "branches" / target)
    for read in (lambda: export.leaves_of(run, 1), lambda: run_stages(run, ("merge",)), lambda: merged_card(run)):
        with pytest.raises(ValueError, match=r"branches/[01]/done\.json was made from other inputs: "):
            read()


def test_parameters_of_another_training_of_the_same_branch_are_refused(finished, tmp_path):
    run = world.copied(finished, tmp_path)
    done = read_json(run.workdir.branch_done(1))
    write_json(run.workdir.branch_done(1), {**done, "fingerprint": "0" * 64})
    with pytest.raises(ValueError, match=r"holds other parameters .* records \(000000000000\); .*delete .*branches/1 "):
        export.leaves_of(run, 1)


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("branch", [None, 1])
def test_an_export_of_one_changed_bit_is_refused(finished, tmp_path, branch, place):
    run = world.copied(finished, tmp_path)
    flipped(run.workdir.merged_params if branch is None else run.workdir.branch(branch) / "checkpoints", place)
    with pytest.raises(ValueError, match=r"is damaged \(since it was written, .* has changed\); delete "):
        export.leaves_of(run, branch)


@pytest.mark.parametrize("name", ["merged/checksums.json", "branches/1/checksums.json"])
def test_what_has_no_checksums_is_not_read(finished, tmp_path, name):
    run = world.copied(finished, tmp_path)
    (Path(run.workdir.root) / name).unlink()
    branch = 1 if name.startswith("branches") else None
    with pytest.raises(ValueError, match=r"without its checksums nothing is read \(is missing\); delete "):
        export.leaves_of(run, branch)


def test_checksums_of_another_merge_are_refused(finished, tmp_path):
    run = world.copied(finished, tmp_path)
    sums = read_json(run.workdir.merged_sums)
    write_json(run.workdir.merged_sums, {**sums, "inputs": {**sums["inputs"], "method": "uniform"}})
    with pytest.raises(ValueError, match=r"checksums\.json is of another merge than .*merge\.json; delete "):
        export.leaves_of(run, None)


@pytest.mark.parametrize(
    ("changes", "mend"),
    [
        ({"train.clip_norm": 0.0}, "raise train.warmup or set train.clip_norm (it is 0: no clipping), and start"),
        ({"train.clip_norm": 1.0}, "raise train.warmup or lower train.clip_norm, and start"),
    ],
)
def test_the_advice_after_divergence_can_be_obeyed(finished, tmp_path, changes, mend):
    wild = world.copied(finished, tmp_path, overwrite=True, **{"train.learning_rate": 1e30, **changes})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("merit_jax.pipeline.train_branches.fine_tune", diverges)
        with pytest.raises(ValueError, match=re.escape(mend)) as first:
            train_branch(wild, 0)
        with pytest.raises(ValueError, match=re.escape(f"{first.value} (it has diverged before")):
            train_branch(dataclasses.replace(wild, overwrite=False), 0)


def diverges(*_, **__):
    raise DivergedError("the loss is nan at step 1")


def test_a_branch_that_diverges_stops_and_is_not_started_again_until_something_changes(finished, tmp_path):
    wild = world.copied(finished, tmp_path, overwrite=True, **{"train.learning_rate": 1e30})
    said = r"branch 0: the .* step \d+ \(the last finite loss is .*\)\. Training has stopped.*train\.learning_rate"
    with pytest.raises(ValueError, match=said):
        train_branch(wild, 0)
    assert not wild.workdir.branch_done(0).exists()
    again = dataclasses.replace(wild, overwrite=False)
    with pytest.raises(ValueError, match=said + r".*it has diverged before"):
        train_branch(again, 0)
    calm = world.copied(finished, tmp_path, overwrite=True)
    assert train_branch(calm, 0)
    assert not calm.workdir.branch_diverged(0).exists()
    assert (
        read_json(calm.workdir.branch_done(0))["fingerprint"]
        == read_json(finished.workdir.branch_done(0))["fingerprint"]
    )
