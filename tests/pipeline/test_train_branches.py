"""Branches and their merge: what belongs to another run, is unfinished or damaged is refused by name."""

import gc
import json
import shutil
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath

from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.pipeline.stages import run_stages
from merit_jax.pipeline.train_branches import train_branch
from merit_jax.workdir.artifacts import read_json, write_json
from merit_jax.workdir.checksums import file_checksums
from tests.support import world


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run, not yet merged."""
    run = world.copied(finished, tmp_path)
    run.workdir.merged.rmtree()
    return run


def checkpoints(run, k):
    return Path(run.workdir.branch(k) / "checkpoints")


def refused(run, stage, match):
    with pytest.raises(ValueError, match=match):
        run_stages(run, (stage,))
    assert stage != "merge" or not run.workdir.merge_record.exists()


def test_all_branches_share_one_compiled_step(finished):
    assert len(list(Path(finished.workdir.root).glob("branches/*/done.json"))) == 4
    assert finished.train_step._cache_size() == 1


def test_a_branch_that_is_not_there(run):
    run.workdir.branch(2).rmtree()
    refused(run, "merge", r"branch 2 is not finished .*merit branch --branch=2")


def test_an_unfinished_branch(run):
    run.workdir.branch_done(1).unlink()
    refused(run, "merge", r"branch 1 is not finished")


def test_a_branch_without_its_checkpoint(run):
    shutil.rmtree(checkpoints(run, 1))
    refused(run, "merge", r"no finished checkpoint in .*branches/1/checkpoints")


def test_a_damaged_record_of_a_branch(run):
    run.workdir.branch_done(3).write_text('{"inputs"')
    for stage in ("train", "merge"):
        refused(run, stage, r"branches/3/done\.json is not valid JSON")


def test_a_branch_of_another_theta0(run):
    done = read_json(run.workdir.branch_done(2))
    done["inputs"]["theta0"] = "0" * 64
    write_json(run.workdir.branch_done(2), done)
    refused(run, "merge", r'branches/2/done\.json was made from other inputs: theta0: "0000')


def test_another_theta0_at_the_same_path(finished, tmp_path):
    world.checkpoint(tmp_path / "theta0", seed=1)
    run = world.copied(finished, tmp_path)
    refused(run, "train", r"partition\.json was made from other inputs: gradients\.theta0: ")
    refused(run, "gradients", r"gradients/index\.json was made from other inputs: theta0: ")


def test_a_branch_with_another_tree(run):
    item = Path(params_directory(checkpoints(run, 2)))
    shutil.rmtree(item)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(item, args=ocp.args.PyTreeSave({"layers": {"other": np.zeros(3, np.float32)}}))
    sums = read_json(run.workdir.branch(2) / "checksums.json")
    write_json(run.workdir.branch(2) / "checksums.json", {**sums, "files": file_checksums(epath.Path(item.parent))})
    refused(run, "merge", r"branch 2 (lacks|has) it")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint(run):
    for file in Path(params_directory(checkpoints(run, 2))).rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    refused(run, "merge", r"branches/2/checkpoints/\d+/params is damaged \(.{10,900}\); delete .*branches/2 ")
    gc.collect()  # reads that were under way end here


@pytest.mark.parametrize("content", ["", '{"inputs": {}}', '{"inputs": {}, "method": "joint", "branches": [{}]}'])
def test_a_damaged_partition(run, content):
    run.workdir.partition.write_text(content)
    for stage in ("train", "merge"):
        refused(run, stage, r"partition\.json")


def test_a_partition_of_another_mixture(finished, tmp_path):
    run = world.copied(finished, tmp_path, **{"mixture.include": ("copy", "upper", "first", "vowel")})
    refused(run, "train", r"partition\.json was made from other inputs: .*datasets\.length: .* -> nothing")


def test_a_branch_number_that_is_not_in_the_plan(run):
    with pytest.raises(ValueError, match=r"no branch 4; .* has branches 0 to 3"):
        train_branch(run, 4)


def test_another_average_trains_other_branches_and_the_default_is_that_of_earlier_versions(finished, tmp_path):
    done = read_json(finished.workdir.branch_done(0))
    assert "average" not in done["inputs"]["train"]
    refused(
        world.copied(finished, tmp_path, **{"train.average": "example"}), "train", 'train.average: nothing -> "example"'
    )
    run = world.copied(finished, tmp_path, overwrite=True, **{"train.average": "example"})
    assert train_branch(run, 0)
    again = read_json(run.workdir.branch_done(0))
    assert again["inputs"]["train"]["average"] == "example"
    assert (again["tokens"], again["all_tokens"]) == (done["tokens"], done["all_tokens"])
    assert again["fingerprint"] != done["fingerprint"]


def test_a_merge_is_made_again_after_a_killed_one(finished, run):
    (run.workdir.merged / "params.orbax-checkpoint-tmp").mkdir(parents=True)
    run_stages(run, ("merge",))
    assert [path.name for path in run.workdir.merged.iterdir() if path.is_dir()] == ["params"]
    assert read_json(run.workdir.merge_record) == read_json(finished.workdir.merge_record)


def test_an_export_is_made_again_after_a_killed_one(finished, run):
    run_stages(run, ("merge",))
    (run.workdir.merged / ".hf.abcd").mkdir()
    run_stages(run, ("export",))
    new, old = (world.exported(r.workdir.merged_hf) for r in (run, finished))
    assert all(new[path].tobytes() == old[path].tobytes() for path in old)
    assert json.loads((run.workdir.merged_hf / "merit.json").read_text())["weights"]


def test_a_branch_copied_from_elsewhere_is_merged_to_the_same_bits(finished, run, tmp_path):
    away = tmp_path / "elsewhere"
    shutil.copytree(run.workdir.branch(1), away)
    run.workdir.branch(1).rmtree()
    shutil.copytree(away, run.workdir.branch(1))
    run_stages(run, ("merge",))
    assert read_json(run.workdir.merge_record) == read_json(finished.workdir.merge_record)


def test_a_copy_with_one_bit_changed_is_not_merged(run):
    file = max(
        (file for file in Path(params_directory(checkpoints(run, 1))).rglob("*") if file.is_file()),
        key=lambda file: file.stat().st_size,
    )
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    refused(run, "merge", r"branches/1/checkpoints/\d+/params is damaged \(.*since it was written, .* has changed\)")


def test_a_copy_without_its_checksums_is_not_merged_and_not_taken_as_it_is(finished, run):
    Path(run.workdir.branch(1) / "checksums.json").unlink()
    refused(run, "merge", r"branches/1/checksums\.json: without its checksums nothing is read .*; delete .*branches/1 ")
    run.workdir.branch_done(1).unlink()
    refused(run, "train", r"branches/1/checksums\.json: without its checksums nothing is read .*; delete .*branches/1 ")
    run.workdir.branch(1).rmtree()
    train_branch(run, 1)
    run_stages(run, ("merge",))
    assert read_json(run.workdir.merge_record) == read_json(finished.workdir.merge_record)


def test_the_checkpoints_of_another_branch_are_not_merged(run):
    for name in ("checkpoints", "checksums.json"):
        target, source = Path(run.workdir.branch(1) / name), Path(run.workdir.branch(2) / name)
        if target.is_dir():
            shutil.rmtree(target)
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
    refused(run, "merge", r"branches/1/checksums\.json is of a branch made from another theta0, data or configuration")


def test_merged_parameters_with_one_bit_changed_are_not_exported(finished, tmp_path):
    run = world.copied(finished, tmp_path)
    run.workdir.merged_hf.rmtree()
    file = max(
        (file for file in Path(run.workdir.merged_params).rglob("*") if file.is_file()), key=lambda f: f.stat().st_size
    )
    content = bytearray(file.read_bytes())
    content[-1] ^= 128
    file.write_bytes(content)
    refused(run, "export", r"merged/params.* is damaged \(since it was written, .* has changed\)")


def test_a_partition_with_one_digit_changed_is_refused(run):
    text = run.workdir.partition.read_text()
    seed = read_json(run.workdir.partition)["branches"][0]["seed"]
    run.workdir.partition.write_text(text.replace(str(seed), str(seed + 1)))
    for stage in ("train", "merge"):
        refused(run, stage, r"partition\.json does not hold what was written")
