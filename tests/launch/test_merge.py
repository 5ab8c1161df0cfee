"""merit merge: folders in, a folder out that other tools load, and one line for each mistake."""

import importlib.util
import json
import logging
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from merit_jax.launch.console.exit_codes import MISTAKE
from merit_jax.launch.wiring.merge_folders import merge_folders, open_models
from merit_jax.merging import MERGERS
from merit_jax.models import StoredTensors
from merit_jax.models.io import disk, hf_folder
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
        "--method=regmean needs the training data": ["--method=regmean", "--out=c"],
        "--method=ota_ffg needs the second moment of Adam": ["--method=ota_ffg", "--out=c"],
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


WITHOUT = """
import runpy, sys
sys.argv = ["merge", *sys.argv[1:]]
try:
    runpy.run_module("merit_jax.launch.merge", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
"""Merges, and prints the packages that are loaded then."""


def test_an_average_of_folders_waits_for_neither_jax_nor_transformers(tmp_path):
    assert importlib.util.find_spec("transformers") is not None
    given = [f"--base={BASE}", f"--models={','.join(FOLDERS[:2])}", "--weights=0.25,0.75", f"--out={tmp_path / 'out'}"]
    done = subprocess.run([sys.executable, "-c", WITHOUT, *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert {"numpy", "safetensors", "merit_jax"} <= loaded
    assert not loaded & {"jax", "jaxlib", "flax", "optax", "orbax", "transformers", "torch", "scipy", "tensorstore"}
    one, other = (load_file(FOLDER / name / "model.safetensors") for name in MODELS[:2])
    for key, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        expected = 0.25 * one[key].astype(np.float64) + 0.75 * other[key]
        np.testing.assert_allclose(tensor, expected, rtol=0, atol=1e-6)


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
    with pytest.raises(
        ValueError, match=r"model\.norm\.weight: .*odd/model\.safetensors holds values that are not finite"
    ):
        merge_folders(BASE, [FOLDERS[0], odd], [0.5, 0.5], "token_weighted", {}, str(tmp_path / "out"))
    assert [file.name for file in tmp_path.iterdir()] == ["odd"]


def test_a_buffer_of_whole_numbers_that_differs_is_named_by_file(tmp_path):
    base, odd = (
        changed(tmp_path / name, lambda t, n=n: {**t, "steps": np.array([n])}, FOLDER / name)
        for n, name in enumerate(("base", "a"))
    )
    with pytest.raises(
        ValueError, match=r"steps: int64 cannot be averaged, and .*a/model\.s.* differs from .*base/model\.s"
    ):
        merge_folders(base, [odd], None, "uniform", {}, str(tmp_path / "out"))


@pytest.mark.parametrize("method", sorted(name for name, merger in MERGERS.items() if not merger.statistic))
def test_a_base_that_is_not_finite_is_refused_by_every_method(tmp_path, method):
    bad = changed(
        tmp_path / "bad", lambda t: {**t, "model.norm.weight": np.full(16, np.inf, np.float32)}, FOLDER / "base"
    )
    options = {"scale": 0.5} if method == "interpolate" else {}
    models = FOLDERS[:1] if method == "interpolate" else FOLDERS[:2]
    with pytest.raises(
        ValueError, match=r"model\.norm\.weight: .*bad/model\.safetensors holds values that are not finite"
    ):
        merge_folders(bad, models, None, method, options, str(tmp_path / "out"))
    assert [file.name for file in tmp_path.iterdir()] == ["bad"]


def test_a_result_that_overflows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="merged values do not fit float32; merge with a smaller scale"):
        merge_folders(BASE, FOLDERS[:2], None, "task_arithmetic", {"scale": 1e39}, str(tmp_path / "out"))


def configured(path, **keys):
    """A copy of a golden model with other keys in its config."""
    shutil.copytree(FOLDER / "a", path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | keys))
    return str(path)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"model_type": "mistral"}, "model_type = 'mistral', 'llama' in the base"),
        ({"rms_norm_eps": 1e-5}, r"rms_norm_eps = 1e-05, 1e-06 in the base; the models compute differently"),
        ({"rope_theta": 5e5}, r"rope_parameters\.rope_theta = 500000\.0, 10000\.0 in the base"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu', 'silu' in the base"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings = False, True in the base"),
    ],
)
def test_a_model_that_computes_something_else_is_refused_by_key(tmp_path, keys, said):
    odd = configured(tmp_path / "odd", **keys)
    with pytest.raises(ValueError, match=rf"odd/config\.json: .*{said}"):
        open_models(BASE, [FOLDERS[1], odd])


def test_what_differs_in_name_and_training_only_is_merged(tmp_path):
    other = configured(
        tmp_path / "other", torch_dtype="bfloat16", use_cache=False, attention_dropout=0.1, eos_token_id=3
    )
    open_models(BASE, [other, FOLDERS[1]])


def both_stored(path, source):
    """A copy of a tied golden model that stores its head too."""
    return changed(path, lambda t: {**t, "lm_head.weight": t["model.embed_tokens.weight"].copy()}, source)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_a_tied_pair_that_is_stored_twice_stays_tied(tmp_path, method):
    base, *models = (both_stored(tmp_path / name, FOLDER / name) for name in ("base", "a", "b"))
    merge_folders(base, [models[0], FOLDERS[1]], None, method, {"drop_rate": 0.5}, str(tmp_path / "out"))
    merged = load_file(tmp_path / "out" / "model.safetensors")
    np.testing.assert_array_equal(merged["lm_head.weight"], merged["model.embed_tokens.weight"])
    merge_folders(BASE, FOLDERS[:2], None, method, {"drop_rate": 0.5}, str(tmp_path / "plain"))
    plain = load_file(tmp_path / "plain" / "model.safetensors")
    assert set(merged) == {*plain, "lm_head.weight"}
    for key, tensor in plain.items():
        np.testing.assert_array_equal(merged[key], tensor)


def test_a_model_under_other_names_is_merged_into_the_bases(tmp_path):
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32)}
    other = changed(tmp_path / "other", lambda t: {f"module._orig_mod.{k}": v for k, v in {**t, **buffer}.items()})
    for name, model in (("out", other), ("plain", FOLDERS[0])):
        merge_folders(BASE, [model, FOLDERS[1]], None, "ties", {}, str(tmp_path / name))
    merged, plain = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "plain"))
    assert set(merged) == set(plain)
    for key, tensor in plain.items():
        np.testing.assert_array_equal(merged[key], tensor)


@pytest.mark.parametrize("method", ["token_weighted", "ties"])
def test_what_cannot_be_written_is_told_before_a_tensor_is_read(tmp_path, monkeypatch, method):
    def read(file, key):
        raise AssertionError(f"{key} was read")

    monkeypatch.setattr(hf_folder, "read_tensor", read)
    options = {"trim_scope": "global"} if method == "ties" else {}
    base = tmp_path / "base"
    shutil.copytree(BASE, base)
    (tmp_path / "secret.json").write_text("{}")
    (base / "tokenizer_config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ValueError, match=r"is a link to .*secret\.json, outside the folder"):
        merge_folders(str(base), FOLDERS[:2], None, method, options, str(tmp_path / "out"))
    (base / "tokenizer_config.json").unlink()
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="GB are free; make room"):
        merge_folders(str(base), FOLDERS[:2], None, method, options, str(tmp_path / "out"))


def test_code_and_adapters_are_named_and_not_copied(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("merit_jax"), "propagate", True)
    base, model = tmp_path / "base", tmp_path / "model"
    shutil.copytree(BASE, base)
    shutil.copytree(FOLDERS[0], model)
    (base / "modeling_own.py").write_text("")
    (base / "adapter_config.json").write_text("{}")
    (model / "adapter_model.safetensors").write_bytes(b"")
    merge_folders(str(base), [str(model)], None, "uniform", {}, str(tmp_path / "out"))
    assert f"{base}: its code is not copied (modeling_own.py)" in caplog.text
    assert f"{base}: the adapter in it is neither merged nor copied (adapter_config.json)" in caplog.text
    assert f"{model}: the adapter in it is neither merged nor copied (adapter_model.safetensors)" in caplog.text
    found = {file.name for file in (tmp_path / "out").iterdir()}
    assert found == {"config.json", "model.safetensors", "README.md", "merit.json", "mergekit.yaml"}


def test_a_token_of_one_model_only_is_refused(tmp_path):
    base, chat = tmp_path / "base", tmp_path / "chat"
    for path, source, added in ((base, BASE, []), (chat, FOLDERS[0], [{"id": 47, "content": "<|im_end|>"}])):
        shutil.copytree(source, path)
        (path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}, "added_tokens": added}))
    with pytest.raises(ValueError, match=r"id 47 is '<\|im_end\|>' there and no token here"):
        open_models(str(base), [str(chat)])


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


def test_a_base_under_wrapped_names_is_written_under_those_that_transformers_loads(tmp_path):
    base = tmp_path / "base"
    shutil.copytree(BASE, base)
    tensors = load_file(base / "model.safetensors")
    save_file({f"module._orig_mod.{name}": value for name, value in tensors.items()}, base / "model.safetensors")
    merge_folders(str(base), list(map(str, FOLDERS)), None, "uniform", {}, str(tmp_path / "out"))
    merge_folders(str(BASE), list(map(str, FOLDERS)), None, "uniform", {}, str(tmp_path / "plain"))
    found, plain = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "plain"))
    assert found.keys() == plain.keys() == tensors.keys()
    assert all(np.array_equal(found[name], plain[name]) for name in plain)


@pytest.mark.parametrize("models", [[], [""], [str(FOLDERS[0]), ""]])
def test_an_empty_entry_of_models_is_told(tmp_path, models):
    with pytest.raises(ValueError, match=r"--models=.*: an entry is empty; give the folders"):
        merge_folders(str(BASE), models, None, "uniform", {}, str(tmp_path / "out"))


def test_excluded_tensors_are_the_bases(tmp_path):
    out = tmp_path / "out"
    merge_folders(BASE, FOLDERS[:2], None, "uniform", {}, str(out), exclude=[r"\.mlp\.up_proj\."])
    base, one, other = (load_file(f"{path}/model.safetensors") for path in (BASE, *FOLDERS[:2]))
    for key, tensor in load_file(out / "model.safetensors").items():
        expected = base[key] if ".mlp.up_proj." in key else (one[key] + other[key]) / 2
        np.testing.assert_allclose(tensor, expected, rtol=0, atol=1e-6, err_msg=key)
    assert json.loads((out / "merit.json").read_text())["exclude"] == [r"\.mlp\.up_proj\."]
    assert "so are the tensors whose names have" in (out / "README.md").read_text()
    assert not (out / "mergekit.yaml").exists()
    with pytest.raises(ValueError, match="--exclude: 'router' is found in no parameter"):
        merge_folders(BASE, FOLDERS[:2], None, "uniform", {}, str(tmp_path / "no"), exclude=["router"])
