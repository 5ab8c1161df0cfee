"""launch.merge: folders in, a folder out that other tools load, and one line for each mistake."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from launch.console.exit_codes import MISTAKE
from launch.wiring.merge_folders import merge_folders, open_models
from models import StoredTensors
from tests.launch.test_commands import commands
from tests.merging.golden.cases import FOLDER, MODELS

FOLDERS = [str(FOLDER / name) for name in MODELS]
BASE = str(FOLDER / "base")


def changed(path, alter, source=FOLDER / "a"):
    """A copy of a golden model with other tensors."""
    shutil.copytree(source, path)
    save_file(alter(load_file(path / "model.safetensors")), path / "model.safetensors", metadata={"format": "pt"})
    return str(path)


def test_a_merge_is_made_as_the_command_line_says(tmp_path):
    given = [f"--base={BASE}", f"--models={','.join(FOLDERS[:2])}"]
    ties = [
        "--method=ties",
        '--options={"density": 0.5, "weighted_mean": true}',
        "--weights=0.25,0.75",
        "--max_shard_bytes=9000",
    ]
    mistakes = {
        "merge weights must sum to one": ["--weights=1,1", "--out=c"],
        "got 1 weights for 2 branches": ["--weights=1", "--out=c"],
        "--weights make no difference to --method=ties": ["--weights=0.5,0.5", "--method=ties", "--out=c"],
        "--weights=a,b: expected a number for each model": ["--weights=a,b", "--out=c"],
        "unknown method 'nonsense'; known:": ["--method=nonsense", "--out=c"],
        "--options={scale}: not JSON": ["--options={scale}", "--out=c"],
        "--options=[1]: expected a JSON object": ["--options=[1]", "--out=c"],
        "unknown ['depth']": ["--method=ties", '--options={"depth": 1}', "--out=c"],
        "--method=fisher needs the training data": ["--method=fisher", "--out=c"],
        "b exists and is not an empty folder": ["--out=b"],
        "nowhere: expected a Hugging Face folder": ["--out=c", "--base=nowhere"],
        "--models has": [f"--models={FOLDERS[0]},{FOLDERS[0]}/", "--out=c"],
    }
    lines = [[*given, "--out=a"], [*given, *ties, "--out=b"], *([*given, *line] for line in mistakes.values())]
    (plain, *_), (trimmed, *_), *failed = commands(tmp_path, "merge", lines)
    assert (plain, trimmed) == (0, 0)
    for (mistake, line), (code, _, error) in zip(mistakes.items(), failed, strict=True):
        assert code == MISTAKE, (line, error)
        assert mistake in error, (line, error)
        assert "Traceback" not in error, (line, error)
    assert not (tmp_path / "c").exists()

    one, other = (load_file(FOLDER / name / "model.safetensors") for name in MODELS[:2])
    for key, tensor in load_file(tmp_path / "a" / "model.safetensors").items():
        np.testing.assert_allclose(tensor, (one[key] + other[key]) / 2, rtol=0, atol=1e-6)
    assert len(list((tmp_path / "b").glob("model-*.safetensors"))) > 1
    record = json.loads((tmp_path / "b" / "merit.json").read_text())
    assert (record["merge"], record["weights"], record["models"]) == ("ties", [0.25, 0.75], ["a", "b"])
    assert (record["options"]["density"], record["options"]["trim_scope"]) == (0.5, "tensor")
    card = (tmp_path / "b" / "README.md").read_text()
    assert "base_model: base" in card
    assert "| b | 0.75 |" in card
    assert str(FOLDER) not in card + json.dumps(record)


def test_types_of_the_models_may_differ_and_the_bases_are_written(tmp_path):
    half = changed(tmp_path / "half", lambda t: {k: v.astype(np.float16) for k, v in t.items()}, FOLDER / "base")
    merge_folders(half, FOLDERS[:2], [0.5, 0.5], "token_weighted", {}, str(tmp_path / "out"))
    one, other = (load_file(FOLDER / name / "model.safetensors") for name in MODELS[:2])
    for key, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        assert tensor.dtype == np.float16
        np.testing.assert_array_equal(tensor, (one[key] - 0.5 * (one[key] - other[key])).astype(np.float16))


def test_methods_on_matrices_take_linear_maps_of_stored_names_as_such(tmp_path):
    merge_folders(BASE, FOLDERS[:1], [1.0], "iso_c", {}, str(tmp_path / "out"))
    base, one, merged = (load_file(f"{path}/model.safetensors") for path in (BASE, FOLDERS[0], str(tmp_path / "out")))
    key, table = "model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight"
    spectrum = np.linalg.svd(one[key] - base[key], compute_uv=False)
    flat = np.linalg.svd(merged[key] - base[key], compute_uv=False)
    assert spectrum[0] > 2 * spectrum.mean()
    np.testing.assert_allclose(flat, spectrum.mean(), rtol=1e-3)
    np.testing.assert_allclose(merged[table], one[table], rtol=0, atol=1e-6)


def without_norm(tensors):
    return {key: tensor for key, tensor in tensors.items() if key != "model.norm.weight"}


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (without_norm, r"model\.norm\.weight: theta0 has it, .*odd lacks it"),
        (lambda t: {**t, "new": np.ones(1, np.float32)}, "new: .*odd has it, theta0 lacks it"),
        (
            lambda t: {**t, "model.norm.weight": np.ones(3, np.float32)},
            r"model\.norm\.weight: .*odd has float32\[3\], theta0 has float32\[16\]",
        ),
    ],
)
def test_a_model_with_other_tensors_is_refused_by_name(tmp_path, alter, said):
    odd = changed(tmp_path / "odd", alter)
    with pytest.raises(ValueError, match=said):
        open_models(BASE, [FOLDERS[1], odd])


def test_a_model_that_is_not_finite_leaves_nothing_behind(tmp_path):
    odd = changed(tmp_path / "odd", lambda t: {**t, "model.norm.weight": np.full(16, np.nan, np.float32)})
    with pytest.raises(ValueError, match=r"model\.norm\.weight: branch 1 holds values that are not finite"):
        merge_folders(BASE, [FOLDERS[0], odd], [0.5, 0.5], "token_weighted", {}, str(tmp_path / "out"))
    assert [file.name for file in tmp_path.iterdir()] == ["odd"]


@pytest.mark.parity
def test_transformers_loads_the_folder(tmp_path):
    pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    merge_folders(BASE, FOLDERS, [0.25] * 4, "tsv_m", {}, str(tmp_path / "out"))
    peer, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    norm = StoredTensors(tmp_path / "out").read("model.norm.weight")
    np.testing.assert_array_equal(peer.model.norm.weight.detach().numpy(), norm)


def test_weights_that_make_no_difference_are_refused_before_a_model_is_read(tmp_path):
    with pytest.raises(ValueError, match="make no difference to --method=ties"):
        merge_folders("nowhere", ["none"], [1.0], "ties", {}, str(tmp_path / "out"))
