"""Export to Hugging Face folders: bit-exact, complete, streamed, atomic."""

import json
import os

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file

import tests.support.tiny as tiny
from merit_jax.models import export_hf, load_pretrained


def stored(path):
    """Every tensor of a folder."""
    files = sorted(path.glob("*.safetensors"))
    return {key: tensor for file in files for key, tensor in load_file(file).items()}


def reader(params):
    return flatten_dict(params, sep="/").__getitem__


def assert_same_tensors(found, expected):
    assert set(found) == set(expected)
    for key, tensor in expected.items():
        assert (found[key].dtype, found[key].shape) == (tensor.dtype, tensor.shape)
        assert found[key].tobytes() == tensor.tobytes(), key


CASES = {
    "llama": {"family": "llama"},
    "qwen2": {"family": "qwen2"},
    "sharded": {"family": "llama", "shards": 3},
    "bfloat16": {"family": "qwen2", "dtype": tiny.BF16},
    "float16": {"family": "llama", "dtype": np.float16},
    "tied": {"family": "llama", "tied": True},
    "tied and stored": {"family": "qwen2", "tied": True, "stored": True, "dtype": tiny.BF16},
}


def base(path, family, shards=1, **options):
    weights = tiny.tensors(family, **options)
    return tiny.folder(path, family, shards=shards, weights=weights, tie_word_embeddings=options.get("tied", False))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("max_shard_bytes", [10**9, 9000])
def test_round_trip_is_bit_exact(tmp_path, case, max_shard_bytes):
    path, out = base(tmp_path / "base", **CASES[case]), tmp_path / "out"
    _, params = load_pretrained(path)
    export_hf(out, reader(params), path, max_shard_bytes=max_shard_bytes)
    assert_same_tensors(stored(out), stored(path))
    assert (out / "config.json").read_bytes() == (path / "config.json").read_bytes()
    sizes = [file.stat().st_size for file in out.glob("*.safetensors")]
    assert (len(sizes) > 1) == (max_shard_bytes == 9000)
    _, again = load_pretrained(out)
    assert_same_tensors(
        flatten_dict(again, sep="/"), {k: np.asarray(v) for k, v in flatten_dict(params, sep="/").items()}
    )


def test_recomputed_buffers_of_the_base_are_kept(tmp_path):
    buffers = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": np.arange(2, dtype=np.float32) for n in range(3)}
    path = tiny.folder(tmp_path / "base", weights=tiny.tensors("llama") | buffers)
    _, params = load_pretrained(path)
    export_hf(tmp_path / "out", reader(params), path)
    assert_same_tensors(stored(tmp_path / "out"), stored(path))


def test_other_files_come_along_but_no_weights_code_or_model_card(tmp_path):
    path = tiny.folder(tmp_path / "base", shards=2)
    kept = (
        "tokenizer.json",
        "generation_config.json",
        "chat_template.jinja",
        "merges.txt",
        "LICENSE",
        "tokenizer.model",
    )
    for name in (*kept, "README.md", "pytorch_model.bin", "modeling_custom.py"):
        (path / name).write_text(name)
    _, params = load_pretrained(path)
    export_hf(tmp_path / "out", reader(params), path)
    found = {file.name: file for file in (tmp_path / "out").iterdir()}
    assert set(found) == {*kept, "config.json", "model.safetensors"}
    assert all(found[name].read_text() == name for name in kept)


def test_dtype_option_changes_tensors_and_config(tmp_path):
    path = tiny.folder(tmp_path / "base", torch_dtype="float32")
    _, params = load_pretrained(path)
    export_hf(tmp_path / "out", reader(params), path, dtype="bfloat16")
    expected = {key: tensor.astype(tiny.BF16) for key, tensor in stored(path).items()}
    assert_same_tensors(stored(tmp_path / "out"), expected)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    with pytest.raises(ValueError, match="dtype = 'int8'"):
        export_hf(tmp_path / "no", reader(params), path, dtype="int8")


def test_a_value_that_float16_cannot_hold_is_refused_by_tensor(tmp_path):
    weights = tiny.tensors("llama")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = 7e4
    path = tiny.folder(tmp_path / "base", weights=weights)
    _, params = load_pretrained(path)
    said = r"model\.layers\.1\.mlp\.up_proj\.weight: values up to 7e\+04 do not fit float16, .* bfloat16 or float32"
    with pytest.raises(ValueError, match=said):
        export_hf(tmp_path / "out", reader(params), path, dtype="float16")
    export_hf(tmp_path / "wide", reader(params), path, dtype="bfloat16")
    half = tiny.folder(tmp_path / "half", weights=tiny.tensors("llama", dtype=np.float16))
    with pytest.raises(
        ValueError, match=r"up_proj\.weight: values up to 7e\+04 do not fit float16, the type in .*half"
    ):
        export_hf(tmp_path / "out", reader(params), half)
    weights["model.norm.weight"][0] = np.nan
    _, params = load_pretrained(tiny.folder(tmp_path / "nan", weights=weights))
    with pytest.raises(ValueError, match=r"model\.norm\.weight: holds values that are not finite"):
        export_hf(tmp_path / "out", reader(params), path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["base", "half", "nan", "wide"]


def test_leaves_are_read_once_and_one_at_a_time(tmp_path):
    path, calls = base(tmp_path / "base", "llama", tied=True, stored=True), []
    _, params = load_pretrained(path)

    def read(leaf):
        calls.append(leaf)
        return reader(params)(leaf)

    export_hf(tmp_path / "out", read, path, max_shard_bytes=9000)
    assert sorted(calls) == sorted(flatten_dict(params, sep="/"))


@pytest.mark.parametrize("failure", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_failed_export_leaves_nothing(tmp_path, failure):
    path = tiny.folder(tmp_path / "base")
    _, params = load_pretrained(path)

    def read(leaf):
        if leaf.startswith("layers/mlp"):
            raise failure
        return reader(params)(leaf)

    with pytest.raises(type(failure)):
        export_hf(tmp_path / "out", read, path)
    assert [file.name for file in tmp_path.iterdir()] == ["base"]


def test_leaves_of_another_shape_and_folders_in_use_are_refused(tmp_path):
    path = tiny.folder(tmp_path / "base")
    _, params = load_pretrained(path)
    with pytest.raises(ValueError, match=r"leaf '.*' has shape \(1,\)"):
        export_hf(tmp_path / "out", lambda leaf: np.ones(1, np.float32), path)
    with pytest.raises(ValueError, match="exists and is not an empty folder"):
        export_hf(path, reader(params), path)
    assert {file.name for file in tmp_path.iterdir()} == {"base"}


@pytest.mark.parity
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_transformers_loads_an_export_and_gives_the_same_logits(tmp_path, family):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    path = base(tmp_path / "base", family, tied=True)
    model, params = load_pretrained(path)
    params["final_norm"]["scale"] = params["final_norm"]["scale"] * 1.5
    export_hf(tmp_path / "out", reader(params), path, max_shard_bytes=9000)
    peer, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True, dtype=torch.float32)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    batch = tiny.rows(6, width=6)
    expected = peer(input_ids=torch.from_numpy(batch.tokens).long()).logits.detach().numpy()
    np.testing.assert_allclose(tiny.logits(model, params, batch), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["vocab.txt", "additional_chat_templates/a.jinja"])
def test_a_link_to_a_file_elsewhere_is_not_copied_into_what_others_get(tmp_path, name):
    (tmp_path / "private").write_text("secret")
    base = tiny.folder(tmp_path / "hf")
    (base / name).parent.mkdir(exist_ok=True)
    (base / name).symlink_to(tmp_path / "private")
    with pytest.raises(ValueError, match=rf"{name} is a link to .*private, outside the folder"):
        export_hf(tmp_path / "out", reader(load_pretrained(base)[1]), base)
    assert not (tmp_path / "out").exists()


PRIVATE = (".netrc.json", "secrets.json", "notes.txt", "trainer_state.json", "id_rsa.model", "modeling_x.py", "a.jinja")
PUBLIC = ("LICENSE", "NOTICE.txt", "USE_POLICY.md", "tokenizer_config.json", "qwen.tiktoken", "generation_config.json")


def test_only_files_of_a_model_are_exported_and_a_pipe_is_refused(tmp_path):
    path = tiny.folder(tmp_path / "base")
    for name in (*PRIVATE, *PUBLIC):
        (path / name).write_text("{}")
    params = load_pretrained(path)[1]
    export_hf(tmp_path / "out", reader(params), path)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"config.json", "model.safetensors", *PUBLIC}
    os.mkfifo(path / "merges.txt")
    with pytest.raises(ValueError, match=r"merges\.txt: a named pipe"):
        export_hf(tmp_path / "other", reader(params), path)
    assert not (tmp_path / "other").exists()


def test_the_links_of_hugging_faces_cache_are_copied(tmp_path):
    base = tiny.folder(tmp_path / "models--a--b" / "snapshots" / "1234")
    (tmp_path / "models--a--b" / "blobs").mkdir()
    for file in sorted(base.iterdir()):
        blob = tmp_path / "models--a--b" / "blobs" / file.name
        file.rename(blob)
        file.symlink_to(blob)
    export_hf(tmp_path / "out", reader(load_pretrained(base)[1]), base)
    assert_same_tensors(stored(tmp_path / "out"), stored(base))
