"""A merge of the branches that are finished says what it lacks, and takes late branches up as if they had been there."""

import contextlib
import dataclasses
import importlib
import json
import shutil

import numpy as np
import pytest

from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.core.types import Branch, DatasetSlice
from merit_jax.partition.branches import Partition
from merit_jax.pipeline.merge_inputs import lacks_branches, with_missing
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.run_model_card import missing_shares
from merit_jax.pipeline.stages import run_stages
from merit_jax.workdir.artifacts import read_json
from tests.support import world


def incomplete(finished, root, missing):
    """A copy of a finished run that allows branches to be missing, not merged, with some branches put aside."""
    run = world.copied(finished, root)
    run.workdir.merged.rmtree()
    run = dataclasses.replace(run, allow_missing=True)
    for k in missing:
        shutil.move(run.workdir.branch(k), root / f"late{k}")
    return run


def arrive(run, root, *branches):
    for k in branches:
        shutil.move(root / f"late{k}", run.workdir.branch(k))


def merged(run):
    return world.host(OrbaxLeaves(run.workdir.merged_params))


def mean(finished, tokens):
    """The average by tokens, in float64."""
    folders = {k: world.host(OrbaxLeaves(params_directory(finished.workdir.branch(k) / "checkpoints"))) for k in tokens}
    total = sum(tokens.values())
    theta0 = world.host(finished.theta0.leaves())
    trained = next(iter(folders.values()))
    return {
        path: sum(count * folders[k][path].astype(np.float64) for k, count in tokens.items()) / total
        if path in trained
        else leaf
        for path, leaf in theta0.items()
    }


def close(found, expected, rtol=1e-6):
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_allclose(found[path], leaf, rtol=0, atol=rtol * np.abs(leaf).max(), err_msg=path)


def tokens_of(finished):
    return [read_json(finished.workdir.branch_done(k))["tokens"] for k in range(4)]


def test_without_leave_a_missing_branch_is_refused(finished, tmp_path):
    run = dataclasses.replace(incomplete(finished, tmp_path, [2]), allow_missing=False)
    with pytest.raises(
        ValueError, match=r"branch 2 is not finished .*--branch=2, or merge the others with --allow_missing"
    ):
        run_stages(run, ("merge",))


def test_the_weights_of_the_others_are_renormalised(finished, tmp_path):
    run, tokens = incomplete(finished, tmp_path, [2]), tokens_of(finished)
    assert run_stages(run, ("merge",))
    record = read_json(run.workdir.merge_record)
    there = {k: tokens[k] for k in (0, 1, 3)}
    assert record["tokens"] == [tokens[0], tokens[1], 0, tokens[3]]
    expected = [there.get(k, 0) / sum(there.values()) for k in range(4)]
    np.testing.assert_allclose(record["weights"], expected, rtol=1e-15)
    close(merged(run), mean(finished, there))
    assert not run_stages(run, ("merge",))


def test_the_card_names_the_missing_datasets(finished, tmp_path):
    run = incomplete(finished, tmp_path, [1, 2])
    run_stages(run, ("merge", "export"))
    plan = load_partition(run)
    missing = [share.dataset for k in (1, 2) for share in plan.branches[k].shares]
    text = (run.workdir.merged_hf / "README.md").read_text()
    assert (
        f"**Incomplete**: of 4 branches (numbered from 0), 1, 2 had not finished. Missing datasets: {', '.join(missing)}."
        in text
    )
    assert "2 copies of" in text
    assert "\n| 0 | " in text
    assert "\n| 1 | " not in text
    record = json.loads((run.workdir.merged_hf / "merit.json").read_text())
    assert record["missing"] == {"branches": [1, 2], "shares": [[name, 0, 1] for name in missing]}


def test_a_whole_merge_says_nothing_of_missing_datasets(finished):
    assert "Incomplete" not in (finished.workdir.merged_hf / "README.md").read_text()
    assert json.loads((finished.workdir.merged_hf / "merit.json").read_text())["missing"] == {
        "branches": [],
        "shares": [],
    }


def test_late_branches_are_added_exactly_and_the_others_are_not_read_again(finished, tmp_path):
    run = incomplete(finished, tmp_path, [1, 2])
    run_stages(run, ("merge", "export"))
    shutil.rmtree(run.workdir.branch(0) / "checkpoints")
    shutil.rmtree(run.workdir.branch(3) / "checkpoints")
    arrive(run, tmp_path, 2)
    assert run_stages(run, ("merge",))
    shutil.rmtree(run.workdir.branch(2) / "checkpoints")
    arrive(run, tmp_path, 1)
    assert run_stages(run, ("merge", "export"))
    close(merged(run), merged(finished))
    close(merged(run), mean(finished, dict(enumerate(tokens_of(finished)))))
    record, whole = read_json(run.workdir.merge_record), read_json(finished.workdir.merge_record)
    assert {**record, "displacement": {}} == {**whole, "displacement": {}}
    assert record["displacement"]["branches"] == whole["displacement"]["branches"]
    assert record["displacement"]["merged"] == pytest.approx(whole["displacement"]["merged"], rel=1e-5)
    assert "Incomplete" not in (run.workdir.merged_hf / "README.md").read_text()
    assert not run.workdir.merged_next.exists()
    assert not run_stages(run, ("merge", "export"))


def test_late_branches_are_weighed_by_all_their_tokens_where_the_config_says_so(finished, tmp_path):
    run = incomplete(finished, tmp_path, [1, 2])
    with run.config.unlocked():
        run.config.merge.tokens = "all"
    counts = [read_json(finished.workdir.branch_done(k))["all_tokens"] for k in range(4)]
    run_stages(run, ("merge",))
    assert read_json(run.workdir.merge_record)["all_tokens"] == [counts[0], 0, 0, counts[3]]
    close(merged(run), mean(finished, {k: counts[k] for k in (0, 3)}))
    shutil.rmtree(run.workdir.branch(0) / "checkpoints")
    arrive(run, tmp_path, 1, 2)
    run_stages(run, ("merge",))
    record = read_json(run.workdir.merge_record)
    assert record["all_tokens"] == counts
    np.testing.assert_allclose(record["weights"], np.array(counts) / sum(counts), rtol=1e-15)
    close(merged(run), mean(finished, dict(enumerate(counts))))


def test_an_operator_that_is_no_running_average_merges_all_again(finished, tmp_path):
    run = incomplete(finished, tmp_path, [1])
    with run.config.unlocked():
        run.config.merge.method = "uniform"
    run_stages(run, ("merge",))
    arrive(run, tmp_path, 1)
    assert run_stages(run, ("merge",))
    close(merged(run), mean(finished, dict.fromkeys(range(4), 1)))


def test_a_branch_that_finishes_while_a_merge_begins_waits_for_the_next(finished, tmp_path, monkeypatch):
    run, tokens = incomplete(finished, tmp_path, [3]), tokens_of(finished)
    merge_branches = importlib.import_module("merit_jax.pipeline.merge_branches")
    held = merge_branches.held

    @contextlib.contextmanager
    def late(*arguments):
        arrive(run, tmp_path, 3)
        with held(*arguments) as lease:
            yield lease

    monkeypatch.setattr(merge_branches, "held", late)
    run_stages(run, ("merge",))
    record = read_json(run.workdir.merge_record)
    assert record["inputs"]["branches"][3] is None
    assert record["tokens"] == [*tokens[:3], 0]
    close(merged(run), mean(finished, dict(enumerate(tokens[:3]))))
    monkeypatch.setattr(merge_branches, "held", held)
    run_stages(run, ("merge",))
    assert read_json(run.workdir.merge_record)["tokens"] == tokens
    close(merged(run), mean(finished, dict(enumerate(tokens))))


def test_a_branch_that_was_merged_and_is_gone_is_an_error(finished, tmp_path):
    run = dataclasses.replace(world.copied(finished, tmp_path), allow_missing=True)
    run.workdir.branch(1).rmtree()
    with pytest.raises(ValueError, match=r"merge\.json was made from other inputs: branches: "):
        run_stages(run, ("merge",))


def test_a_merge_with_no_finished_branch_is_refused(finished, tmp_path):
    run = incomplete(finished, tmp_path, range(4))
    with pytest.raises(ValueError, match=r"no branch of .* is finished"):
        run_stages(run, ("merge",))


@pytest.mark.parametrize("removed", [False, True])
def test_a_killed_addition_is_taken_up_or_made_again(finished, tmp_path, removed):
    run = incomplete(finished, tmp_path, [1])
    run_stages(run, ("merge",))
    before = tmp_path / "before"
    shutil.copytree(run.workdir.merged, before)
    arrive(run, tmp_path, 1)
    run_stages(run, ("merge",))
    after = merged(run)
    if removed:
        shutil.move(run.workdir.merged, run.workdir.merged_next)
    else:
        shutil.copytree(run.workdir.merged, run.workdir.merged_next)
        (run.workdir.merged_next / "merge.json").unlink()
        shutil.rmtree(run.workdir.merged)
        shutil.copytree(before, run.workdir.merged)
    run_stages(run, ("merge",))
    assert all(leaf.tobytes() == after[path].tobytes() for path, leaf in merged(run).items())
    assert not run.workdir.merged_next.exists()


@pytest.mark.parametrize(
    ("old", "new", "grown"),
    [
        (["a", None], ["a", "b"], True),
        (["a", None, None], ["a", "b", None], True),
        (["a", "b"], ["a", "b"], False),
        (["a", "b"], ["a", None], False),
        (["a", None], ["c", "b"], False),
        (["a"], ["a", "b"], False),
    ],
)
def test_only_a_record_that_lacks_branches_is_an_earlier_merge(old, new, grown):
    record = {"branches": old, "theta0": "t"}
    assert lacks_branches(record, {"branches": new, "theta0": "t"}) == grown
    assert not lacks_branches(record, {"branches": new, "theta0": "u"})


def test_weights_of_missing_branches_are_zero():
    assert with_missing([0.75, 0.25], [{"tokens": 3}, None, {"tokens": 1}]) == [0.75, 0.0, 0.25]
    assert with_missing(None, [{"tokens": 3}, None]) is None


def test_what_every_branch_was_to_see_is_not_missing():
    slices = tuple(Branch((DatasetSlice("a", k, 2), DatasetSlice("b")), k) for k in range(2))
    plan = Partition("examples", slices, (1, 1), (1, 1))
    assert missing_shares(plan, [1]) == [DatasetSlice("a", 0, 2)]
    assert missing_shares(plan, [0, 1]) == []
