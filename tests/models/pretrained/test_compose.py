"""Composed checkpoints: every part where it belongs, bit for bit; random parts by seed; what does not fit is refused."""

import json
import re

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

import tests.support.tiny as tiny
import tests.support.tiny_tiles as tiny_tiles
from merit_jax.models import compose, load_pretrained
from merit_jax.models.families.registry import FAMILIES, parse_config
from merit_jax.models.pretrained.config_only import ConfigOnlyCheckpoint
from merit_jax.models.pretrained.processor import load_processor
from tests.support.tiny_tokenizer import tiny_tokenizer

pytestmark = pytest.mark.usefixtures("compiled")
TEXT = tiny_tiles.TEXT
QWEN_VL = {
    "model_type": "qwen2_5_vl",
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "image_token_id": 15,
    "tie_word_embeddings": False,
    "text_config": {
        "model_type": "qwen2_5_vl_text",
        **{key: value for key, value in TEXT.items() if key != "rope_theta"},
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0, "mrope_section": [1, 1, 0]},
    },
    "vision_config": {
        "model_type": "qwen2_5_vl_vision",
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 20,
        "num_heads": 2,
        "patch_size": 4,
        "window_size": 16,
        "fullatt_block_indexes": [1],
        "out_hidden_size": 24,
    },
}
KINDS = {"clip": "llama", "smolvlm": "llama", "qwen": "qwen2"}
"""Kind of checkpoint -> family of its decoder."""


def hf_config(kind):
    return QWEN_VL if kind == "qwen" else tiny_tiles.hf_config(kind)


def like(path, kind):
    """A folder without weights."""
    path.mkdir(parents=True)
    tiny_tiles.helpers(path, "clip" if kind == "qwen" else kind)
    (path / "config.json").write_text(json.dumps(hf_config(kind)))
    return path


def whole(path, kind, seed, raw=None):
    """A folder with random weights."""
    rng = np.random.default_rng(seed)
    (like(path, kind) / "config.json").write_text(json.dumps(raw or hf_config(kind)))
    specs = ConfigOnlyCheckpoint(path).specs.values()
    weights = {spec.key: rng.normal(0.1, 0.2, spec.shape).astype(np.float32) for spec in specs}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return path


def text_model(path, family, **changes):
    """A text model with the vocabulary of the others."""
    raw = {**TEXT, "rms_norm_eps": 1e-6, **changes}
    config = parse_config({"model_type": family, **raw}, "text")
    shapes = {k: v.shape for k, v in flatten_dict(tiny.build(config).abstract, sep="/").items()}
    rng = np.random.default_rng(3)
    weights = {
        place.key: rng.normal(0.1, 0.2, tiny.tensor_shape(shapes[leaf], place)).astype(np.float32)
        for leaf, place in tiny.expand(FAMILIES[family].rows(config), shapes)
    }
    tiny.folder(path, family, weights=weights, **raw)
    tiny_tiles.tokenizer().save_pretrained(path)
    return path


def leaves(path):
    """Flat params of a folder."""
    return {name: np.asarray(leaf) for name, leaf in flatten_dict(load_pretrained(path)[1], sep="/").items()}


@pytest.mark.parametrize(
    ("kind", "from_text_model"), [("clip", True), ("smolvlm", True), ("qwen", True), ("qwen", False)]
)
def test_parts_land_where_they_belong_bit_for_bit(tmp_path, kind, from_text_model):
    template = like(tmp_path / "like", kind)
    given = {"vision": whole(tmp_path / "a", kind, 1), "projector": whole(tmp_path / "b", kind, 2)}
    text = text_model(tmp_path / "c", KINDS[kind]) if from_text_model else whole(tmp_path / "c", kind, 3)
    compose(tmp_path / "out", like=template, **given, text=text)
    found = leaves(tmp_path / "out")
    expected = {name: leaf for part in given for name, leaf in leaves(given[part]).items() if name.startswith(part)}
    prefix = "decoder/" if from_text_model else ""
    decoder = {prefix + name: leaf for name, leaf in leaves(text).items() if (prefix + name).startswith("decoder/")}
    expected |= decoder
    assert set(found) == set(expected)
    assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)


def test_what_is_left_out_is_what_init_makes_of_the_seed(tmp_path):
    template, source = like(tmp_path / "like", "qwen"), whole(tmp_path / "source", "qwen", 1)
    compose(tmp_path / "a", like=template, vision=source, seed=0)
    compose(tmp_path / "b", like=template, text=source, seed=1)
    zero, one = leaves(tmp_path / "a"), leaves(tmp_path / "b")
    init, given = ConfigOnlyCheckpoint(template).model.init, leaves(source)
    for found, seed, part in ((zero, 0, "vision/"), (one, 1, "decoder/")):
        made = flatten_dict(jax.jit(init)(jax.random.key(seed)), sep="/")
        for name, leaf in found.items():
            expected = given[name] if name.startswith(part) else np.asarray(made[name])
            np.testing.assert_allclose(leaf, expected, rtol=1e-6, atol=1e-8)
    different = [name for name in zero if name.startswith("projector/") and (zero[name] != one[name]).any()]
    assert [name.rsplit("/", 1)[1] for name in different] == ["kernel", "kernel"]


def test_weights_of_the_template_are_not_read_and_its_other_files_come_along(tmp_path):
    template = like(tmp_path / "like", "smolvlm")
    (template / "model.safetensors").write_bytes(b"damaged")
    (template / "README.md").write_text("of another model")
    compose(tmp_path / "out", like=template, dtype="bfloat16")
    copied = {file.name for file in template.iterdir()} - {"model.safetensors", "README.md"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == copied | {"model.safetensors"}
    assert {leaf.dtype for leaf in load_file(tmp_path / "out" / "model.safetensors").values()} == {np.dtype(tiny.BF16)}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    model, _ = load_pretrained(tmp_path / "out")
    assert load_processor(tmp_path / "out", model.config).images is not None


TEXTS = {
    "rope = Rope(theta=1000.0, scaling=None, rotated=None), expected Rope(theta=5000.0, scaling=None, rotated=None)": {
        "rope_theta": 1000.0
    },
    "norm_eps = 1e-05, expected 1e-06": {"rms_norm_eps": 1e-5},
    "tied = True, expected False": {"tie_word_embeddings": True},
    "vocab_size = 24, expected 23": {"vocab_size": 24},
    "layers = 1, expected 2; mlp_size = 30, expected 40": {"num_hidden_layers": 1, "intermediate_size": 30},
}


@pytest.mark.parametrize("message", TEXTS)
def test_a_decoder_that_does_not_fit_is_refused_with_both_values(tmp_path, message):
    template, text = like(tmp_path / "like", "clip"), text_model(tmp_path / "text", "llama", **TEXTS[message])
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        compose(tmp_path / "out", like=template, text=text)
    assert all(str(path) in str(error.value) for path in (template, text))
    assert not (tmp_path / "out").exists()


def test_a_text_model_of_another_vocabulary_is_refused(tmp_path):
    template, text = like(tmp_path / "like", "clip"), text_model(tmp_path / "text", "llama")
    for file in text.glob("tokenizer*"):
        file.write_text(file.read_text().replace('"square"', '"circle"'))
    with pytest.raises(ValueError, match="id 8 is 'circle' there and 'square' here"):
        compose(tmp_path / "out", like=template, text=text)
    tiny_tokenizer().save_pretrained(text)
    with pytest.raises(ValueError, match=r"the vocabulary of .*text is not that of"):
        compose(tmp_path / "out", like=template, text=text)


def test_parts_of_another_kind_are_refused(tmp_path):
    template, text = like(tmp_path / "like", "clip"), text_model(tmp_path / "text", "llama")
    other = whole(tmp_path / "other", "smolvlm", 1)
    wide = tiny_tiles.hf_config(
        "clip", vision_config={"model_type": "clip_vision_model", **tiny_tiles.TOWER, "hidden_size": 20}
    )
    wider = whole(tmp_path / "wider", "clip", 1, wide)
    refused = {
        "the vision of .*other does not fit .*masked = True, expected False": {"vision": other},
        "its kind is ShuffleProjectorConfig, expected MLPProjectorConfig": {"projector": other},
        "up/kernel has shape .20, 24., expected .16, 24.": {"projector": wider},
        "is a text model and has no vision": {"vision": text},
        "expected a Hugging Face folder": {"text": tmp_path / "absent"},
        "describes a text model": {"like": text},
    }
    for message, given in refused.items():
        with pytest.raises(ValueError, match=message):
            compose(tmp_path / "out", **{"like": template, **given})
    with pytest.raises(ValueError, match="exists and is not an empty folder"):
        compose(text, like=template)


@pytest.mark.parity
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_finds_every_tensor_of_a_composition(tmp_path, kind):
    torch = pytest.importorskip("torch")
    import transformers

    template, text = like(tmp_path / "like", kind), text_model(tmp_path / "text", KINDS[kind])
    compose(tmp_path / "out", like=template, text=text)
    peer_class = getattr(transformers, hf_config(kind)["architectures"][0])
    peer, report = peer_class.from_pretrained(tmp_path / "out", output_loading_info=True, dtype=torch.float32)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    model, params = load_pretrained(tmp_path / "out")
    batch = tiny.rows(5, width=5)._replace(tokens=np.array([[3, 5, 6, 8, 4]], np.int32))
    expected = peer(input_ids=torch.from_numpy(batch.tokens).long()).logits.detach().numpy()
    np.testing.assert_allclose(tiny.logits(model, params, batch), expected, atol=1e-4)


def test_a_part_that_float16_cannot_hold_is_refused_by_tensor(tmp_path):
    template, source = like(tmp_path / "like", "qwen"), whole(tmp_path / "source", "qwen", 1)
    weights = load_file(source / "model.safetensors")
    weights["visual.merger.mlp.0.weight"][0, 0] = -1e5
    save_file(weights, source / "model.safetensors")
    parts = {"like": template, "vision": source, "projector": source, "text": source}
    said = r"visual\.merger\.mlp\.0\.weight: values up to 1e\+05 do not fit float16, the type asked for; .*bfloat16 or float32"
    with pytest.raises(ValueError, match=said):
        compose(tmp_path / "out", **parts, dtype="float16")
    assert not (tmp_path / "out").exists()
    compose(tmp_path / "out", **parts, dtype="bfloat16")
