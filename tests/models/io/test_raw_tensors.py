"""Tensors of folders of any model: read by name, written as the base has them."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tests.support.tiny as tiny
from merit_jax.models import StoredTensors
from tests.models.pretrained.test_export import assert_same_tensors, stored

ODD = {
    "net.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "net.0.bias": np.ones(2, np.float16),
    "wide": np.full(2, 1 / 3),
    "half": np.array([1.5, -2.0], ml_dtypes.bfloat16),
    "position_ids": np.arange(4)[None],
    "mask": np.array([True, False]),
    "conv.weight": np.ones((2, 1, 1, 1), np.float32),
}


def odd(path, config=None, **changes):
    """A folder of a model that no family here describes."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "nobody's"} if config is None else config))
    save_file({**ODD, **changes}, path / "model.safetensors")
    return path


def test_floating_tensors_are_read_as_float32_or_wider_and_others_as_they_are(tmp_path):
    found = StoredTensors(odd(tmp_path / "odd"))
    assert list(found.paths()) == sorted(ODD)
    kinds = {"net.0.bias": "float32", "half": "float32", "wide": "float64", "position_ids": "int64", "mask": "bool"}
    for key, kind in kinds.items():
        value = found.read(key)
        assert value.dtype == found.paths()[key].dtype == np.dtype(kind)
        np.testing.assert_array_equal(value, ODD[key].astype(kind))
    assert found.dtypes == {"float16", "float32", "float64", "bfloat16"}


@pytest.mark.parametrize("max_shard_bytes", [10**9, 9000])
def test_an_export_has_the_bases_tensors_types_and_files(tmp_path, max_shard_bytes):
    weights = tiny.tensors("llama", dtype=tiny.BF16)
    path = tiny.folder(tmp_path / "base", shards=3, weights=weights)
    (path / "tokenizer.json").write_text("{}")
    (path / "README.md").write_text("of the base")
    base = StoredTensors(path)
    base.export(tmp_path / "out", lambda key: base.read(key) * 2, {"README.md": "own"}, max_shard_bytes)
    assert_same_tensors(stored(tmp_path / "out"), {key: tensor * tiny.BF16(2) for key, tensor in weights.items()})
    assert (tmp_path / "out" / "README.md").read_text() == "own"
    assert (tmp_path / "out" / "config.json").read_bytes() == (path / "config.json").read_bytes()
    index = tmp_path / "out" / "model.safetensors.index.json"
    assert index.exists() == (max_shard_bytes == 9000)
    assert StoredTensors(tmp_path / "out").paths() == base.paths()


def test_odd_types_come_back_to_the_bit(tmp_path):
    base = StoredTensors(odd(tmp_path / "odd"))
    base.export(tmp_path / "out", base.read, {})
    assert_same_tensors(load_file(tmp_path / "out" / "model.safetensors"), ODD)


def test_a_value_beyond_its_type_is_refused_and_nothing_is_left(tmp_path):
    base = StoredTensors(odd(tmp_path / "odd"))
    with pytest.raises(ValueError, match=r"net\.0\.bias: values up to 1e\+05 do not fit float16, its type in"):
        base.export(tmp_path / "out", lambda key: base.read(key) * (1e5 if key == "net.0.bias" else 1), {})
    assert [file.name for file in tmp_path.iterdir()] == ["odd"]


@pytest.mark.parametrize(
    ("key", "config", "shape", "matrix"),
    [
        ("model.layers.0.mlp.up_proj.weight", {}, (4, 2), True),
        ("model.layers.0.mlp.up_proj.bias", {}, (4,), False),
        ("model.embed_tokens.weight", {}, (4, 2), False),
        ("transformer.wte.weight", {}, (4, 2), False),
        ("vision_model.embeddings.position_embedding.weight", {}, (4, 2), False),
        ("conv.weight", {}, (4, 2, 1, 1), False),
        ("lm_head.weight", {"tie_word_embeddings": False}, (4, 2), True),
        ("lm_head.weight", {"tie_word_embeddings": True}, (4, 2), False),
        ("lm_head.weight", {"text_config": {"tie_word_embeddings": True}}, (4, 2), False),
        ("lora_A", {}, (4, 2), False),
    ],
)
def test_matrices_are_those_of_linear_maps(tmp_path, key, config, shape, matrix):
    found = StoredTensors(odd(tmp_path / "odd", config, **{key: np.zeros(shape, np.float32)}))
    assert (found.linear_map(key, found.paths()[key]) == "out_in") == matrix


def test_what_is_no_folder_of_safetensors_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing: expected a Hugging Face folder"):
        StoredTensors(tmp_path / "nothing")
    path = odd(tmp_path / "odd")
    (path / "model.safetensors").rename(path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"neither model\.safetensors nor"):
        StoredTensors(path)
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    (path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(ValueError, match="tensor 'w' has type F8_E4M3"):
        StoredTensors(path)


def test_an_adapter_alone_is_named_as_one(tmp_path):
    path = odd(tmp_path / "lora")
    (path / "model.safetensors").rename(path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"lora: an adapter .* --base, and the adapter among --models"):
        StoredTensors(path)
