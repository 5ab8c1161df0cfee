"""Import of Hugging Face folders: what is read, and what is refused."""

import copy
import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import save_file

import tests.support.tiny as tiny
from merit_jax.models import Llama3Scaling, Rope, leaf_keys, load_pretrained, read_config
from merit_jax.models.families.registry import parse_config

SHARD = "model-00002-of-00002.safetensors"


def test_kernels_are_stacked_and_transposed(tmp_path):
    path = tiny.folder(tmp_path / "hf", "qwen2")
    stored = tiny.tensors("qwen2")
    _, params = load_pretrained(path)
    for layer in range(3):
        name = f"model.layers.{layer}.self_attn.k_proj"
        np.testing.assert_array_equal(params["layers"]["attention"]["key"]["kernel"][layer], stored[f"{name}.weight"].T)
        np.testing.assert_array_equal(params["layers"]["attention"]["key"]["bias"][layer], stored[f"{name}.bias"])
    np.testing.assert_array_equal(params["embed"]["embedding"], stored["model.embed_tokens.weight"])
    np.testing.assert_array_equal(params["unembed"]["kernel"], stored["lm_head.weight"].T)


def test_sharded_and_single_folders_give_the_same_params(tmp_path):
    _, single = load_pretrained(tiny.folder(tmp_path / "one"))
    _, sharded = load_pretrained(tiny.folder(tmp_path / "two", shards=2))
    jax.tree.map(np.testing.assert_array_equal, single, sharded)


def test_param_dtype_and_overrides_are_kept_apart(tmp_path):
    path = tiny.folder(tmp_path / "hf", weights=tiny.tensors("llama", dtype=tiny.BF16))
    model, params = load_pretrained(path, dtype="bfloat16", remat="full")
    assert (model.config.dtype, model.config.param_dtype, model.config.remat) == ("bfloat16", "float32", "full")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    _, params = load_pretrained(path, param_dtype="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"bfloat16"}


def test_leaves_go_where_the_shardings_say(tmp_path):
    path = tiny.folder(tmp_path / "hf")
    mesh = jax.make_mesh((2,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))

    def shardings(model):
        """Rows of every kernel over two devices; the rest on both."""
        spec = {3: PartitionSpec(None, "fsdp"), 2: PartitionSpec()}
        return jax.tree.map(lambda leaf: NamedSharding(mesh, spec.get(leaf.ndim, PartitionSpec())), model.abstract)

    model, plain = load_pretrained(path)
    _, placed = load_pretrained(path, shardings=shardings)
    jax.tree.map(np.testing.assert_array_equal, plain, placed)
    kernel = placed["layers"]["mlp"]["up"]["kernel"]
    assert [part.data.shape for part in kernel.addressable_shards] == [(3, 12, 40)] * 2
    partial = shardings(model)
    del partial["unembed"]
    with pytest.raises(ValueError, match="shardings and params differ at 'unembed/kernel'"):
        load_pretrained(path, shardings=partial)


def test_every_tensor_belongs_to_one_leaf(tmp_path):
    path = tiny.folder(tmp_path / "hf")
    model, _ = load_pretrained(path)
    keys = leaf_keys(model, path)
    assert list(keys) == list(flatten_dict(model.abstract, sep="/"))
    assert sorted(place.key for places in keys.values() for place in places) == sorted(tiny.tensors("llama"))
    assert [(p.key, p.at, p.transpose) for p in keys["layers/mlp/up/kernel"]][1] == (
        "model.layers.1.mlp.up_proj.weight",
        (1,),
        True,
    )


def test_tied_checkpoints_may_store_an_equal_unembedding(tmp_path):
    weights = tiny.tensors("llama", tied=True, stored=True)
    _, params = load_pretrained(tiny.folder(tmp_path / "a", tie_word_embeddings=True, weights=weights))
    assert "unembed" not in params
    weights["lm_head.weight"] = weights["lm_head.weight"] + np.float32(1)
    with pytest.raises(ValueError, match=r"embed_tokens.*lm_head.*differ"):
        load_pretrained(tiny.folder(tmp_path / "b", tie_word_embeddings=True, weights=weights))


def test_tying_is_found_in_a_nested_text_config(tmp_path):
    path = tiny.folder(tmp_path / "hf", tie_word_embeddings=None, text_config={"tie_word_embeddings": True})
    assert read_config(path).tied


def test_old_and_new_rope_keys_mean_the_same(tmp_path):
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    new = {"rope_parameters": {"rope_type": "llama3", "rope_theta": 77.0, **scaling}, "rope_theta": None}
    old = {"rope_scaling": {"rope_type": "llama3", **scaling}, "rope_theta": 77.0}
    found = [read_config(tiny.folder(tmp_path / name, **keys)) for name, keys in (("new", new), ("old", old))]
    assert found[0] == found[1]
    assert found[0].rope == Rope(77.0, Llama3Scaling(8.0, 1.0, 4.0, 32))


UNSUPPORTED = {
    "unknown family": ({"model_type": "mamba"}, "model_type = 'mamba'.*llama, qwen2"),
    "activation": ({"hidden_act": "relu"}, "hidden_act = 'relu'"),
    "mlp bias": ({"mlp_bias": "yes"}, "config that transformers can read: .*'mlp_bias'"),
    "attention bias": ({"attention_bias": 2}, "attention_bias"),
    "rope type": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'"),
    "partial rotary": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
    "window": ({"sliding_window": 128}, "sliding_window = 128"),
    "layer types": ({"layer_types": ["sliding_attention"] * 3}, "layer_types = 'sliding_attention'"),
    "number of layer types": ({"layer_types": ["full_attention"]}, "`num_hidden_layers` .* number of `layer_types`"),
    "no causal mask": ({"is_causal": False}, "is_causal = False is not supported; expected True"),
    "null is not causal": ({"is_causal": None}, "is_causal = None is not supported; expected True"),
    "settings of single layers": ({"per_layer_config": {"0": {"head_dim": 8}}}, "per_layer_config = "),
    "rope by layer type": (
        {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 9.0}}},
        "rope_parameters: full_attention = .*: settings by layer type are not supported",
    ),
    "both rope keys": (
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "rope_parameters": {"rope_type": "default"}},
        "rope_parameters: rope_type = 'dynamic' is not supported",
    ),
    "no theta": ({"rope_theta": 0}, "rope_theta = 0.0; expected more than 0"),
    "quantised": ({"quantization_config": {"bits": 4}}, "quantization_config"),
    "missing size": ({"hidden_size": None}, "hidden_size = None; expected a whole number"),
    "bad heads": ({"num_key_value_heads": 4}, "config.json: heads = 6 is not a multiple"),
    "bad eps": ({"rms_norm_eps": "small"}, "rms_norm_eps = 'small'"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_unsupported_configs_are_refused_by_name(tmp_path, case):
    changes, message = UNSUPPORTED[case]
    path = tiny.folder(tmp_path / "hf", weights={}, **changes)
    with pytest.raises(ValueError, match=message) as raised:
        load_pretrained(path)
    assert "config.json" in str(raised.value)


@pytest.mark.parametrize("window", [{}, {"sliding_window": 128}])
def test_qwen2_has_windows_only_in_layers_after_the_first(tmp_path, window):
    """As in transformers, whose default is 4096 tokens from layer `max_window_layers` = 28 on."""
    off = tiny.folder(tmp_path / "off", "qwen2", use_sliding_window=False, max_window_layers=0, **window)
    assert read_config(off) == read_config(tiny.folder(tmp_path / "late", "qwen2", use_sliding_window=True, **window))
    on = tiny.folder(tmp_path / "on", "qwen2", use_sliding_window=True, max_window_layers=2, **window)
    assert [kind.window for kind in read_config(on).kinds] == [0, 0, window.get("sliding_window", 4096)]
    assert not read_config(off).kinds


def test_original_length_at_the_top_counts_before_that_of_the_scaling(tmp_path):
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    path = tiny.folder(
        tmp_path / "hf",
        rope_scaling=scaling | {"original_max_position_embeddings": 32},
        original_max_position_embeddings=16,
    )
    assert read_config(path).rope.scaling == Llama3Scaling(8.0, 1.0, 4.0, 16)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("factor", 0, "factor = 0.0; expected more than 0"),
        ("high_freq_factor", 1.0, "high_freq_factor = 1.0; expected more than low_freq_factor = 1.0"),
        ("original_max_position_embeddings", -1, "original_max_position_embeddings = -1.0; expected more than 0"),
    ],
)
def test_a_scaling_without_meaning_is_refused(tmp_path, key, value, message):
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 32, key: value}
    with pytest.raises(ValueError, match=rf"config\.json: rope_parameters: {message}"):
        read_config(tiny.folder(tmp_path / "hf", rope_scaling=scaling))


def test_reading_a_config_changes_nothing_in_it():
    raw = tiny.hf_config(rope_parameters={"rope_type": "default"})
    before = copy.deepcopy(raw)
    parse_config(raw, "config.json")
    assert raw == before


def without(weights, key):
    return {name: weights[name] for name in weights if name != key}


def test_missing_unknown_and_misshapen_tensors_are_named(tmp_path):
    weights = tiny.tensors("llama")
    gone = "model.layers.2.mlp.up_proj.weight"
    with pytest.raises(ValueError, match=f"tensor '{gone}' is missing"):
        load_pretrained(tiny.folder(tmp_path / "a", weights=without(weights, gone)))
    odd = {"model.layers.3.mlp.up_proj.weight": weights[gone]}
    with pytest.raises(ValueError, match=r"'model\.layers\.3\.mlp\.up_proj\.weight' has no place"):
        load_pretrained(tiny.folder(tmp_path / "b", weights=weights | odd))
    with pytest.raises(ValueError, match=rf"'{gone}' has shape \(24, 40\), but the config asks for \(40, 24\)"):
        load_pretrained(tiny.folder(tmp_path / "c", weights=weights | {gone: np.ones((24, 40), np.float32)}))
    with pytest.raises(ValueError, match=f"tensor '{gone}' has type I32"):
        load_pretrained(tiny.folder(tmp_path / "d", weights=weights | {gone: np.ones((40, 24), np.int32)}))


def test_damaged_shards_are_named(tmp_path):
    path = tiny.folder(tmp_path / "hf", shards=2)
    (path / SHARD).write_bytes((path / SHARD).read_bytes()[:-10])
    with pytest.raises(ValueError, match=f"{SHARD}: not a readable safetensors file"):
        load_pretrained(path)
    (path / SHARD).write_bytes((2**60).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match=f"{SHARD}: not a readable safetensors file"):
        load_pretrained(path)
    (path / SHARD).unlink()
    with pytest.raises(ValueError, match=f"shard {SHARD} is missing"):
        load_pretrained(path)


def test_an_index_that_disagrees_with_its_shards_is_refused(tmp_path):
    path = tiny.folder(tmp_path / "hf", shards=2)
    index = path / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": without(weight_map, "lm_head.weight")}))
    with pytest.raises(ValueError, match=r"'lm_head\.weight' is listed in None but stored in model-"):
        load_pretrained(path)
    index.write_text(json.dumps({"weight_map": weight_map | {"lm_head.weight": "../secret.safetensors"}}))
    with pytest.raises(ValueError, match=r"shard '\.\./secret.safetensors' is not a file name"):
        load_pretrained(path)
    index.write_text("{}")
    with pytest.raises(ValueError, match="expected 'weight_map'"):
        load_pretrained(path)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    path = tiny.folder(tmp_path / "hf", shards=2)
    save_file(tiny.tensors("llama"), path / SHARD)
    with pytest.raises(ValueError, match="is also in model-00001"):
        load_pretrained(path)


def test_what_is_no_checkpoint_is_said_so(tmp_path):
    with pytest.raises(ValueError, match="expected a Hugging Face folder"):
        load_pretrained(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"config.json: no such file"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="expected a JSON object, got list"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(tiny.hf_config()))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="only safetensors are read, never pickles"):
        load_pretrained(tmp_path)


LIES = {
    "layers": ({"num_hidden_layers": 2**31 - 1}, "num_hidden_layers = 2147483647; expected 16384 at most"),
    "some layers": ({"num_hidden_layers": 9999}, "layers = 9999, but the files hold [0-9]+ tensors"),
    "head": ({"head_dim": 2**31 - 2}, "head_dim = 2147483646, but the files hold [0-9]+ at most along any axis"),
    "more than can be": ({"num_hidden_layers": 10**30}, "num_hidden_layers = 1000.*; expected a whole number"),
    "no number": ({"rms_norm_eps": float("nan")}, "rms_norm_eps = nan; expected a number"),
    "endless": ({"rope_theta": float("inf")}, "rope_theta = inf; expected a number"),
    "list of layers": ({"layer_types": 3}, "layer_types = 3; expected a list"),
    "family": ({"model_type": ["llama"]}, r"model_type = \['llama'\] is not supported"),
}


@pytest.mark.parametrize("case", LIES)
def test_a_config_that_lies_is_refused_at_once(tmp_path, case):
    changes, reason = LIES[case]
    path = tiny.folder(tmp_path / "hf")
    content = {**json.loads((path / "config.json").read_text()), **changes}
    (path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=reason):
        load_pretrained(path)


@pytest.mark.parametrize("files", [["a"], 3, {"x": "y"}])
def test_an_index_whose_files_are_no_names_is_refused(tmp_path, files):
    path = tiny.folder(tmp_path / "hf", shards=2)
    index = path / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": weight_map | {"lm_head.weight": files}}))
    with pytest.raises(ValueError, match="expected 'weight_map', from tensor names to files"):
        load_pretrained(path)


def test_an_index_of_an_impossible_file_name_is_refused(tmp_path):
    path = tiny.folder(tmp_path / "hf", shards=2)
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "a" * 300}}))
    with pytest.raises(ValueError, match=r"shard a{200} is missing from the folder"):
        load_pretrained(path)


@pytest.mark.parametrize("text", ['{"model_type": "llama", "model_type": "qwen2"}', "[" * 100_000, "1" * 5000])
def test_a_strange_config_is_refused(tmp_path, text):
    path = tiny.folder(tmp_path / "hf")
    (path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json: expected a JSON"):
        load_pretrained(path)
