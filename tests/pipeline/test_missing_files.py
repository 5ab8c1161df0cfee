"""A stage whose record is there but whose files are not is refused, and finishes once the advice is obeyed."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from merit_jax.launch import export
from merit_jax.pipeline.stages import run_stages
from merit_jax.workdir.artifacts import read_json
from tests.support import world


def gone(path):
    """Removes a file or a folder."""
    shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def stops(run, stages, said, delete, again):
    """Checks that stages refuse with an advice, and finish once it is obeyed."""
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=said):
            run_stages(dataclasses.replace(run, overwrite=overwrite), stages)
    gone(run.workdir.root / delete)
    assert run_stages(run, again)
    assert not run_stages(run, ("train", "merge", *stages))


EXPORTED = (
    "model.safetensors", "config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja", "merit.json",
)  # fmt: skip


@pytest.mark.parametrize("harm", [gone, lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x01")])
def test_an_export_of_which_a_file_is_gone_or_changed_is_refused_and_made_again(finished, tmp_path, harm):
    run = world.copied(finished, tmp_path)
    folder = Path(run.workdir.merged_hf)
    before = {name: (folder / name).read_bytes() for name in EXPORTED}
    for name in EXPORTED:
        harm(folder / name)
        said = (
            rf"merged/hf is damaged \(since it was written, {name} (is missing|has changed)\); delete .*merged/hf and "
        )
        stops(run, ("export",), said + r"export again: merit run --stages=export", "merged/hf", ("export",))
        assert {name: (folder / name).read_bytes() for name in EXPORTED} == before


def test_an_export_whose_card_was_edited_or_that_has_a_file_more_is_left_alone(finished, tmp_path):
    run = world.copied(finished, tmp_path)
    for name in ("README.md", "model.gguf"):
        (run.workdir.merged_hf / name).write_text("mine")
    assert not run_stages(run, ("export",))


def test_an_export_without_checksums_was_not_finished_and_is_made_again(finished, tmp_path):
    run = world.copied(finished, tmp_path)
    gone(run.workdir.merged_hf / "checksums.json")
    assert run_stages(run, ("export",))
    assert files_below(run.workdir.merged_hf) == files_below(finished.workdir.merged_hf)


@pytest.mark.parametrize("whole", [True, False])
def test_merged_parameters_that_are_gone_are_refused_and_made_again(finished, tmp_path, whole):
    run = world.copied(finished, tmp_path)
    gone(run.workdir.merged_params / ("" if whole else files_below(run.workdir.merged_params)[0]))
    reason = r"params is missing" if whole else r"params.* is damaged \(since it was written, .* is missing\)"
    said = reason + r"; delete \S*/merged and merge again: merit run --stages=merge"
    with pytest.raises(ValueError, match=said):
        export.leaves_of(run, None)
    stops(run, ("merge", "export"), said, "merged", ("merge", "export"))
    assert read_json(run.workdir.merge_record) == read_json(finished.workdir.merge_record)
    export.leaves_of(run, None)


@pytest.mark.parametrize("whole", [True, False])
def test_checkpoints_that_are_gone_are_refused_and_trained_again(finished, tmp_path, whole):
    run = world.copied(finished, tmp_path)
    checkpoints = run.workdir.branch(0) / "checkpoints"
    gone(checkpoints / ("" if whole else files_below(checkpoints)[0]))
    said = r"branches/0/checkpoints/.* is missing\)?; delete \S*/branches/0 and train the branch again \(merit branch "
    stops(run, ("train",), said, "branches/0", ("train",))
    key = "fingerprint"
    assert read_json(run.workdir.branch_done(0))[key] == read_json(finished.workdir.branch_done(0))[key]
