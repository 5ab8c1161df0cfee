"""One rule for every stage: an artifact that is there is left alone, and one made from other inputs is refused."""

import contextlib
import dataclasses
import json

import pytest
from etils import epath

from merit_jax.core.errors import UnfinishedError
from merit_jax.pipeline.run import Run, Shared
from merit_jax.pipeline.stage import ExtendableStage, GrowingStage, Stage
from merit_jax.workdir.artifact_types import JsonArtifact, ReplaceableFolder
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.lease import held
from merit_jax.workdir.paths import Workdir


@pytest.fixture
def run(tmp_path):
    """A run without model or data, whose config is the inputs of its stages."""
    return Run({"a": 1}, Workdir.at(tmp_path), Shared.__new__(Shared))


def stage(compute, kind=Stage, **options):
    return kind(
        lambda run: run.config, compute, lambda run: JsonArtifact(run.workdir.root / "x.json"), name="x", **options
    )


def content(run):
    return read_json(run.workdir.root / "x.json")


def test_a_stage_computes_once_and_keeps_its_time(run):
    seen = []
    made = stage(lambda run: seen.append(1) or {"value": len(seen)})
    assert made(run)
    assert not made(run)
    assert content(run) == {"inputs": {"a": 1}, "value": 1}
    assert list(read_json(run.workdir.times)) == ["x"]


def test_other_inputs_are_refused_by_name_and_made_again_on_overwrite(run):
    made = stage(lambda run: {"value": run.config["a"]})
    made(run)
    other = dataclasses.replace(run, config={"a": 2})
    with pytest.raises(ValueError, match=r"x\.json was made from other inputs: a: 1 -> 2"):
        made(other)
    assert content(run)["value"] == 1
    assert made(dataclasses.replace(other, overwrite=True))
    assert content(run)["value"] == 2


def test_a_stage_that_does_not_apply_looks_at_nothing(run):
    made = stage(lambda run: pytest.fail("computed"), applies=lambda run: False)
    assert not made(run)
    assert not (run.workdir.root / "x.json").exists()


def test_the_artifact_of_a_part_is_extended(run):
    def compute(run, inputs, part):
        assert inputs == run.config
        return {"value": [*(part["value"] if part else ()), run.config["a"]]}

    made = stage(compute, ExtendableStage, extends=lambda old, new: old["a"] < new["a"])
    made(run)
    assert made(dataclasses.replace(run, config={"a": 2}))
    assert content(run)["value"] == [1, 2]
    assert not made(dataclasses.replace(run, config={"a": 2}))
    with pytest.raises(ValueError, match="was made from other inputs"):
        made(dataclasses.replace(run, config={"a": 1}))
    assert made(dataclasses.replace(run, config={"a": 3}, overwrite=True))
    assert content(run)["value"] == [3]


def test_entries_are_kept_one_by_one(run):
    def compute(run, known):
        done = list(known["done"]) if known else []
        for entry in ("p", "q", "r"):
            if entry not in done:
                if fails == entry:
                    raise RuntimeError
                done.append(entry)
                yield {"done": done}

    made, fails = stage(compute, GrowingStage), "r"
    with pytest.raises(RuntimeError):
        made(run)
    assert content(run)["done"] == ["p", "q"]
    fails = ""
    assert made(run)
    assert content(run)["done"] == ["p", "q", "r"]
    assert not made(run)


def test_a_guard_is_entered_only_where_there_is_work_and_reaches_the_computation(run):
    entered = []

    @contextlib.contextmanager
    def guard(run):
        entered.append("in")
        yield "key"
        assert (run.workdir.root / "x.json").exists(), "the artifact is written under the guard"

    made = stage(lambda run, key: {"value": key}, guard=guard)
    assert made(run)
    assert not made(run)
    assert content(run)["value"] == "key"
    assert entered == ["in"]


def test_a_stage_that_another_process_holds_is_unfinished(run):
    lease = run.workdir.root / "x.lease"
    made = stage(lambda run, lease: {"value": 1}, guard=lambda run: held(lease, "the work"))
    with held(lease, "the work"), pytest.raises(UnfinishedError, match="the work is held by"):
        made(run)
    assert made(run)


def test_what_finished_while_the_guard_was_awaited_is_not_made_again(run):
    first = stage(lambda run: {"value": "other"})

    @contextlib.contextmanager
    def guard(run):
        first(run)
        yield None

    assert not stage(lambda run, _: {"value": "own"}, guard=guard)(run)
    assert content(run)["value"] == "other"


@pytest.mark.parametrize("killed", [False, True])
def test_a_folder_stays_until_the_one_that_replaces_it_is_whole(tmp_path, killed):
    root = epath.Path(tmp_path)
    artifact = ReplaceableFolder(root / "m" / "record.json", root / "m.next")

    def fill(text, fail=False):
        def write(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "data").write_text(text)
            if fail:
                raise KeyboardInterrupt
            return {"text": text}

        return write

    artifact.write({"a": 1}, fill("old"))
    if killed:
        with pytest.raises(KeyboardInterrupt):
            artifact.write({"a": 2}, fill("new", fail=True))
        artifact.begin({"a": 2}, overwrite=True)
    else:
        artifact.write({"a": 2}, fill("new"))
    assert (root / "m" / "data").read_text() == artifact.read()["text"] == ("old" if killed else "new")
    assert not (root / "m.next").exists()


@pytest.mark.parametrize("moved", [False, True])
def test_a_whole_replacement_takes_its_place_after_a_kill_at_any_moment(tmp_path, moved):
    root = epath.Path(tmp_path)
    artifact = ReplaceableFolder(root / "m" / "record.json", root / "m.next")
    for folder, text in (("m", "old"), ("m.next", "new")):
        (root / folder).mkdir()
        (root / folder / "record.json").write_text(json.dumps({"inputs": {"a": text}}))
    if moved:
        (root / "m").rename(root / "m.former")
    artifact.begin({"a": "new"}, overwrite=False)
    assert artifact.read() == {"inputs": {"a": "new"}}
    assert sorted(path.name for path in root.iterdir()) == ["m"]


def test_a_replacement_for_other_inputs_is_thrown_away(tmp_path):
    root = epath.Path(tmp_path)
    artifact = ReplaceableFolder(root / "m" / "record.json", root / "m.next")
    for folder in ("m", "m.next"):
        (root / folder).mkdir()
        (root / folder / "record.json").write_text(json.dumps({"inputs": {"a": folder}}))
    artifact.begin({"a": "m"}, overwrite=False)
    assert artifact.read() == {"inputs": {"a": "m"}}
    assert not (root / "m.next").exists()
