"""All of MERIT on a tiny checkpoint: what it leaves, what it does not do twice, and what merging gives."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.checkpoints.readers import OrbaxLeaves, OverlayLeaves
from merit_jax.launch.wiring import open_run
from merit_jax.models import load_pretrained
from merit_jax.pipeline.stages import run_stages
from merit_jax.workdir.artifacts import read_arrays, read_json, write_arrays, write_json
from merit_jax.workdir.paths import Workdir
from tests.support import world

TO_MERGE = ("mixture", "gradients", "conflict", "partition", "train", "merge")


def mtimes(root):
    return {str(path): path.stat().st_mtime_ns for path in Path(root).rglob("*") if path.is_file()}


def branch(run, k):
    return OrbaxLeaves(params_directory(run.workdir.branch(k) / "checkpoints"))


def branches(run):
    return [branch(run, k) for k in range(len(read_json(run.workdir.partition)["branches"]))]


def refuse(*_):
    raise AssertionError("must not be called")


def test_every_artifact_is_there(finished):
    root = Path(finished.workdir.root)
    found = {path.relative_to(root).parts[0] for path in root.rglob("*")}
    artifacts = {"theta0.json", "mixture.json", "conflict.npz", "partition.json", "evaluation.json", "times.json"}
    assert found == artifacts | {"projection.json", "tokens", "gradients", "branches", "merged"}
    assert not [path for path in root.rglob("*") if "tmp" in path.name]
    assert len(list((root / "gradients").glob("*.npy"))) == len(finished.names) == 6
    for k in range(4):
        lines = (root / "branches" / str(k) / "metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["step"] == read_json(finished.workdir.branch_done(k))["steps"]
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", "merit.json"} <= {
        path.name for path in (root / "merged" / "hf").iterdir()
    }
    models = read_json(finished.workdir.evaluation)["models"]
    assert list(models) == ["theta0", "merged"]
    assert list(models["merged"]["datasets"]) == finished.names
    assert models["merged"]["mean"]["loss"] < models["theta0"]["mean"]["loss"]


def test_every_dataset_trains_in_exactly_one_branch(finished):
    shares = [share for row in read_json(finished.workdir.partition)["branches"] for share in row["shares"]]
    assert sorted(shares) == [[name, 0, 1] for name in finished.names]


def test_a_second_run_changes_nothing_and_loads_no_weights(finished, tmp_path, monkeypatch):
    run = world.copied(finished, tmp_path)
    before = mtimes(run.workdir.root)
    monkeypatch.setattr("merit_jax.core.sharding.load", refuse)
    run_stages(run)
    assert mtimes(run.workdir.root) == before


@pytest.mark.parametrize(
    ("changes", "stages", "said"),
    [
        ({"gradients.width": 512}, ("gradients",), r"gradients/index\.json .*: gradients\.width: 262144 -> 512\."),
        ({"mixture.max_train": 4}, ("mixture",), r"mixture\.json .*: text\.max_train: 0 -> 4\."),
        ({"seed": 1}, ("partition",), r"text\.seed: 0 -> 1"),
        ({"train.learning_rate": 0.5}, ("train",), r"branches/0/\w+\.json .*: train\.learning_rate: 0\.001 -> 0\.5\."),
        ({"train.learning_rate": 0.5}, ("merge",), r"branches/0/done\.json .*: train\.learning_rate: 0\.001 -> 0\.5\."),
        ({"merge.method": "uniform"}, ("merge",), r'merge\.json .*: method: "token_weighted" -> "uniform"\.'),
        ({"evaluate.max_new_tokens": 4}, ("evaluate",), r"evaluation\.json .*: evaluate\.max_new_tokens: 8 -> 4\."),
    ],
)
def test_a_changed_key_is_named_and_nothing_is_changed(finished, tmp_path, changes, stages, said):
    run = world.copied(finished, tmp_path)
    run.config.unlock().update_from_flattened_dict(changes)
    before = mtimes(run.workdir.root)
    with pytest.raises(ValueError, match=said):
        run_stages(run, stages)
    after = mtimes(run.workdir.root)
    assert {path: time for path, time in after.items() if path in before} == before
    assert all("/tokens/" in path for path in after.keys() - before.keys())


def test_gradients_of_former_coordinates_are_refused_with_a_sentence(finished, tmp_path):
    run = world.copied(finished, tmp_path)
    index = read_json(run.workdir.gradient_index)
    del index["inputs"]["gradients"]["coordinates"]
    write_json(run.workdir.gradient_index, index)
    with pytest.raises(
        ValueError, match=r"index\.json has gradients of an earlier version, .* --overwrite, or use another"
    ):
        run_stages(run, ["gradients"])
    run_stages(dataclasses.replace(run, overwrite=True), ["gradients"])
    assert "coordinates" in read_json(run.workdir.gradient_index)["inputs"]["gradients"]


@pytest.mark.parametrize("stage", ["partition", "project"])
def test_similarities_of_other_gradients_are_refused_by_those_that_read_them(finished, tmp_path, stage):
    run = world.copied(finished, tmp_path, **{"gradients.examples": 4})
    shutil.rmtree(run.workdir.gradients)
    with pytest.raises(
        ValueError,
        match=r"partition\.json was made from other inputs: .*examples: 8 -> 4\. ",
    ):
        run_stages(run, [stage])


def test_similarities_of_former_coordinates_are_refused_by_the_split(finished, tmp_path):
    run = world.copied(finished, tmp_path)
    index, arrays = read_json(run.workdir.gradient_index), read_arrays(run.workdir.conflict)
    inputs = json.loads(str(arrays.pop("inputs")))
    for gradients in (index["inputs"]["gradients"], inputs["gradients"]["gradients"]):
        del gradients["coordinates"]
    write_json(run.workdir.gradient_index, index)
    write_arrays(run.workdir.conflict, inputs, **arrays)
    run.workdir.partition.unlink()
    with pytest.raises(ValueError, match=r"index\.json has gradients of an earlier version"):
        run_stages(run, ["partition"])
    overwrite = dataclasses.replace(run, overwrite=True)
    with pytest.raises(
        ValueError, match=r"conflict\.npz was made from other inputs: .*coordinates: nothing -> .* --overwrite"
    ):
        run_stages(overwrite, ["partition"])
    run_stages(overwrite, ["gradients", "conflict", "partition"])


def test_overwrite_makes_what_changed_again(finished, tmp_path):
    run = world.copied(finished, tmp_path, overwrite=True, **{"train.learning_rate": 1e-4})
    before = mtimes(run.workdir.root)
    run_stages(run, [*TO_MERGE, "export"])
    after = mtimes(run.workdir.root)
    changed = {
        path.removeprefix(f"{run.workdir.root}/").split("/")[0] for path in after if after[path] != before.get(path)
    }
    assert changed == {"branches", "merged", "times.json"}
    old, new = (world.host(OrbaxLeaves(r.workdir.merged_params)) for r in (finished, run))
    assert any((old[path] != new[path]).any() for path in old)


def test_the_merge_is_the_token_weighted_mean_of_the_exported_branches(finished, tmp_path):
    tokens = [row["tokens"] for row in read_json(finished.workdir.partition)["branches"]]
    folders = []
    for k, leaves in enumerate(branches(finished)):
        assert read_json(finished.workdir.branch_done(k))["tokens"] == tokens[k]
        finished.theta0.export(leaves.read, tmp_path / str(k), {})
        folders.append(world.exported(tmp_path / str(k)))
    record = read_json(finished.workdir.merge_record)
    assert record["tokens"] == tokens
    np.testing.assert_allclose(record["weights"], np.array(tokens) / sum(tokens), rtol=1e-15)
    for path, leaf in world.host(OrbaxLeaves(finished.workdir.merged_params)).items():
        mean = sum(w * f[path].astype(np.float64) for w, f in zip(record["weights"], folders, strict=True))
        np.testing.assert_allclose(leaf, mean, rtol=0, atol=1e-6 * np.abs(mean).max())


def test_the_exported_merge_holds_the_merged_leaves(finished):
    merged = world.host(OrbaxLeaves(finished.workdir.merged_params))
    loaded = world.host(load_pretrained(str(finished.workdir.merged_hf))[1])
    assert read_json(finished.workdir.merged_hf / "generation_config.json")["eos_token_id"] == 2  # <|im_end|>
    assert loaded.keys() == merged.keys()
    assert all(loaded[path].tobytes() == merged[path].tobytes() for path in merged)


@pytest.mark.parity
def test_transformers_loads_the_merge(finished):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(finished.workdir.merged_hf)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "say abc"}], return_dict=False)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1].numpy()
    ours, params = load_pretrained(folder)
    batch = world.row(ids)
    expected = np.asarray(ours.unembed(params, ours.hidden(params, batch)))[0, -1]
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_frozen_leaves_keep_their_bits(finished, tmp_path):
    run = world.run(world.beside(finished, tmp_path), "frozen", "random2", **{"train.trainable": ("layers/",)})
    run_stages(run, [*TO_MERGE, "export"])
    start, merged = world.host(run.theta0.leaves()), world.exported(run.workdir.merged_hf)
    trained = world.host(OrbaxLeaves(run.workdir.merged_params))
    assert any(not path.startswith("layers/") for path in start)
    overlaid = [world.host(OverlayLeaves(run.theta0.leaves(), leaves)) for leaves in branches(run)]
    for path, leaf in start.items():
        frozen = not path.startswith("layers/")
        for model in (merged, trained, *overlaid):
            assert (model[path].tobytes() == leaf.tobytes()) == frozen, path
    assert all(path.startswith("layers/") for leaves in branches(run) for path in leaves.paths())


@pytest.mark.parametrize(
    ("method", "count"),
    [("joint", 1), ("random4", 4), ("kmeans2", 2), ("conflict4", 4), ("soup2", 2), ("examples4", 4), ("merit1d", 2)],
)
def test_every_method_runs_to_a_merge_at_the_budget_of_joint_training(finished, tmp_path, method, count):
    source = Path(finished.workdir.root).parent
    run = finished.derive(world.config(source, method), Workdir.at(tmp_path))
    run_stages(run, [*TO_MERGE, "export"])
    record = read_json(run.workdir.merge_record)
    budget = sum(finished.tokens)
    assert len(record["weights"]) == count
    assert sum(record["tokens"]) == budget * (2 if method == "soup2" else 1)
    assert run.workdir.conflict.exists() == (method in ("kmeans2", "conflict4", "merit1d"))
    assert world.exported(run.workdir.merged_hf).keys() == run.theta0.leaves().paths().keys()


def test_three_axes_split_eight_datasets_into_eight_branches(finished, tmp_path):
    root = world.beside(finished, tmp_path, data=False)
    world.mixture(root / "data", rows=4, held_out=1, tasks=tuple(world.TASKS))
    run = world.run(root, "merit3d", "merit3d")
    run_stages(run, TO_MERGE)
    rows = read_json(run.workdir.partition)["branches"]
    assert [len(row["shares"]) for row in rows] == [1] * 8
    assert read_arrays(run.workdir.conflict)["scores"].shape == (8, 3)
    assert len(read_json(run.workdir.merge_record)["weights"]) == 8


def test_fewer_datasets_than_branches_are_refused(finished, tmp_path):
    run = world.run(world.beside(finished, tmp_path), "few", "merit3d")
    with pytest.raises(ValueError, match="cannot make 8 non-empty groups of 6 datasets"):
        run_stages(run, ("mixture", "gradients", "conflict", "partition"))
    assert not run.workdir.partition.exists()


@pytest.mark.parametrize(
    ("key", "stage", "known"),
    [
        (
            "partition.method",
            "partition",
            "median_split, joint, random, alike, kmeans, conflict_induced, replicate, examples",
        ),
        ("merge.method", "merge", "token_weighted, uniform, interpolate"),
        ("train.optimizer", "train", "adamw, sgd"),
        ("gradients.reduction", "gradients", "countsketch, stride"),
    ],
)
def test_an_unknown_name_lists_the_known_ones(finished, tmp_path, key, stage, known):
    run = world.copied(finished, tmp_path, overwrite=True)
    run.config.unlock().update_from_flattened_dict({key: "nonsense"})
    with pytest.raises(ValueError, match="nonsense") as caught:
        run_stages(run, (stage,))
    assert all(name in str(caught.value) for name in known.split(", "))


def test_an_unknown_stage_lists_the_known_ones(finished):
    with pytest.raises(
        ValueError, match="'nonsense'; known: conflict, curvature, evaluate, export, gradients, merge, mixture"
    ):
        run_stages(finished, ("mixture", "nonsense"))


def test_an_empty_dataset_is_named(finished, tmp_path):
    root = world.beside(finished, tmp_path, data=False)
    world.mixture(root / "data")
    (root / "data" / "upper.train.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"upper"):
        run_stages(world.run(root, "run"))
    assert {path.name for path in (root / "run").iterdir()} <= {"tokens"}


def test_opening_a_run_of_no_checkpoint_makes_no_workdir(tmp_path):
    c = world.config(tmp_path)
    c.unlock().model.path = str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="nowhere"):
        open_run.open_run(c, tmp_path / "run")
    assert not (tmp_path / "run").exists()
