"""One model under the names of different versions and wrappers: paired under the base's names, and read the same."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tests.support.tiny as tiny
from merit_jax.models import StoredTensors, open_pretrained
from merit_jax.models.io.tensor_names import canonical_names
from merit_jax.models.pretrained.config_only import ConfigOnlyCheckpoint
from merit_jax.models.pretrained.pairing import pair
from tests.support import tiny_tiles, tiny_vision


def renamed(path, source, rename):
    """A copy of a folder with other tensor names; tensors renamed to "" are left out."""
    path.mkdir()
    (path / "config.json").write_bytes((source / "config.json").read_bytes())
    tensors = {rename(key): value for key, value in load_file(source / "model.safetensors").items()}
    save_file({key: value for key, value in tensors.items() if key}, path / "model.safetensors")
    return path


def random_weights(path):
    """Writes the tensors of a folder's key table."""
    checkpoint, rng = ConfigOnlyCheckpoint(path), np.random.default_rng(0)
    tensors = {key: rng.normal(size=spec.shape).astype(np.float32) for key, spec in checkpoint.specs.items()}
    save_file(tensors, path / "model.safetensors")
    return path


@pytest.fixture
def folders(tmp_path):
    """Model type -> a folder with the names of its key table."""
    (tmp_path / "llava").mkdir()
    (tmp_path / "llava" / "config.json").write_text(json.dumps(tiny_tiles.hf_config("clip")))
    return {
        "qwen2_5_vl": random_weights(tiny_vision.folder(tmp_path / "qwen")),
        "llava": random_weights(tmp_path / "llava"),
        "llama": tiny.folder(tmp_path / "llama", weights=tiny.tensors("llama")),
    }


def in_memory_of_qwen(key):
    return f"model.{key}" if key.startswith("visual.") else key.replace("model.", "model.language_model.", 1)


def in_memory_of_llava(key):
    return (
        "model." + key.replace("language_model.model.", "language_model.", 1)
        if "lm_head" not in key
        else "lm_head.weight"
    )


SPELLINGS = {
    "qwen2_5_vl in memory": ("qwen2_5_vl", in_memory_of_qwen),
    "llava in memory": ("llava", in_memory_of_llava),
    "llava published": ("llava", lambda key: key.replace("vision_tower.", "vision_tower.vision_model.", 1)),
    "compiled": ("llama", lambda key: f"_orig_mod.{key}"),
    "compiled in parallel": ("llama", lambda key: f"module.{key.replace('layers.', 'layers._orig_mod.')}"),
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_other_names_of_one_model_are_paired_and_loaded(folders, tmp_path, case):
    kind, rename = SPELLINGS[case]
    base, other = StoredTensors(folders[kind]), StoredTensors(renamed(tmp_path / "other", folders[kind], rename))
    assert not set(base.specs) <= set(other.specs)
    paired = pair(base, [other])
    assert paired.models[0].paths() == paired.base.paths() == base.paths()
    for key in base.specs:
        np.testing.assert_array_equal(paired.models[0].read(key), base.read(key))
    again = pair(other, [base])
    assert again.models[0].paths() == other.paths()
    loaded, expected = open_pretrained(tmp_path / "other"), open_pretrained(folders[kind])
    for path in expected.paths():
        np.testing.assert_array_equal(loaded.read(path), expected.read(path))


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "llava"])
def test_the_names_of_a_key_table_stay_as_they_are(kind, folders):
    specs = ConfigOnlyCheckpoint(folders[kind]).specs
    assert canonical_names(kind, specs) == {key: key for key in specs}


def with_head(path, source, change=lambda head: head, table=True):
    """A copy of a tied model that stores its head, and its table or not."""
    path.mkdir()
    (path / "config.json").write_bytes((source / "config.json").read_bytes())
    tensors = load_file(source / "model.safetensors")
    tensors["lm_head.weight"] = change(tensors["model.embed_tokens.weight"].copy())
    if not table:
        del tensors["model.embed_tokens.weight"]
    save_file(tensors, path / "model.safetensors")
    return StoredTensors(path)


def test_a_stored_tied_head_is_a_copy_whoever_stores_it(tmp_path):
    source = tiny.folder(tmp_path / "tied", weights=tiny.tensors("llama", tied=True), tie_word_embeddings=True)
    plain = StoredTensors(source)
    both, head = with_head(tmp_path / "both", source), with_head(tmp_path / "head", source, table=False)
    paired = pair(both, [plain, head])
    assert paired.copies == {"lm_head.weight": "model.embed_tokens.weight"}
    for model in paired.models:
        assert set(model.paths()) == set(plain.specs)
        np.testing.assert_array_equal(model.read("model.embed_tokens.weight"), plain.read("model.embed_tokens.weight"))
    assert not pair(plain, [both, head]).copies
    assert set(pair(head, [plain]).models[0].paths()) == set(head.specs)
    other = with_head(tmp_path / "other", source, lambda table: table + 1)
    with pytest.raises(
        ValueError, match=r"other: 'model.embed_tokens.weight' and 'lm_head.weight' differ, but the config"
    ):
        pair(plain, [other])


def test_an_untied_head_is_a_tensor_of_its_own(tmp_path):
    source = tiny.folder(tmp_path / "untied", weights=tiny.tensors("llama"), tie_word_embeddings=False)
    both = with_head(tmp_path / "same", source)
    assert pair(both, [both]).copies == {}
    assert "lm_head.weight" in pair(both, [both]).models[0].paths()


def test_recomputed_buffers_are_the_bases(tmp_path):
    buffers = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": np.arange(2, dtype=np.float32) for n in range(3)}
    plain = StoredTensors(tiny.folder(tmp_path / "plain", weights=tiny.tensors("llama")))
    old = StoredTensors(tiny.folder(tmp_path / "old", weights=tiny.tensors("llama") | buffers))
    for base, model in ((plain, old), (old, plain), (old, old)):
        assert set(pair(base, [model]).models[0].paths()) == set(plain.specs)


def test_a_tensor_under_two_names_is_refused(tmp_path):
    path = tiny.folder(tmp_path / "twice", weights=tiny.tensors("llama"))
    tensors = load_file(path / "model.safetensors")
    save_file({**tensors, "module.model.norm.weight": tensors["model.norm.weight"]}, path / "model.safetensors")
    with pytest.raises(ValueError, match=r"'model.norm.weight' and 'module.model.norm.weight' are one under two names"):
        pair(StoredTensors(path), [])
