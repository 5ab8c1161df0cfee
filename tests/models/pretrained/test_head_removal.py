"""Models without some heads: smaller or with zeros, they compute what gates of zero make of the whole model."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

import tests.support.tiny as tiny
import tests.support.tiny_qwen3_vl as qwen3_vl
import tests.support.tiny_qwen_vl as qwen_vl
import tests.support.tiny_tiles as tiny_tiles
from merit_jax.models import build, export_hf, load_pretrained, open_pretrained, remove_heads
from merit_jax.models.build_model import text_of
from merit_jax.models.families.decoders import DECODERS
from merit_jax.models.families.head_rules import HEAD_RULES
from merit_jax.models.families.registry import FAMILIES, parse_config
from merit_jax.models.io.weight_map import expand, leaf_shapes, tensor_shape
from merit_jax.models.pretrained.processor import load_processor

EVENLY = [[1, 1, 0, 0, 1, 1], [0, 1, 1, 1, 0, 1], [1, 0, 1, 1, 1, 0]]
GROUPS = [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]]
MODEL = [[1, 0, 1, 0, 0, 1], [0, 0, 0, 0, 1, 1], [0, 1, 1, 1, 0, 0]]
ONE = [[1, 1, 1, 1, 0, 1], [0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]]
PLAIN_PHI3 = {
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.5},
}
MANY = {"num_key_value_heads": 6}
"""Keys and values of their own for every head."""


def folder(path, family, **changes):
    """A folder of any text family, with random tensors."""
    raw = {key: value for key, value in tiny.hf_config(family, **changes).items() if value is not None}
    config, rng = parse_config(raw, "tiny"), np.random.default_rng(1)
    shapes = leaf_shapes(build(config).abstract)
    weights = {
        place.key: rng.normal(0.1, 0.2, tensor_shape(shapes[leaf], place)).astype(np.float32)
        for leaf, place in expand(FAMILIES[config.family].rows(config), shapes)
    }
    return tiny.folder(path, family, weights=weights, **changes)


def removed(path, out, kept):
    """Removes heads and exports the rest; returns (checkpoint, removal)."""
    opened = open_pretrained(path)
    removal = remove_heads(opened, {part: np.array(mask, bool) for part, mask in kept.items()})
    export_hf(out, removal.reader(opened.read), removal.base)
    return opened, removal


def logits(model, params, batch):
    """Logits of real tokens."""
    found = jax.jit(lambda p, b: model.unembed(p, model.hidden(p, b)))(params, batch)
    return np.asarray(found)[np.asarray(batch.segments) > 0]


def gated_logits(opened, kept, batch):
    """Logits of the whole model with gates of zero."""
    params = unflatten_dict({leaf: opened.read(leaf) for leaf in opened.paths()}, sep="/")
    return logits(opened.model.gated({part: np.array(mask, np.float32) for part, mask in kept.items()}), params, batch)


def peer_logits(path, batch, kept=None):
    """Logits of transformers, which must find every tensor in its place; heads not in `kept` give nothing to `o_proj`."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    with_images = "vision_config" in json.loads((path / "config.json").read_text())
    kind = transformers.AutoModelForImageTextToText if with_images else transformers.AutoModelForCausalLM
    peer, report = kind.from_pretrained(path, output_loading_info=True, dtype=torch.float32)
    missing = [key for key in report["missing_keys"] if "vision_tower.head." not in key]
    assert not (missing or report["unexpected_keys"] or report["mismatched_keys"])  # noqa: PT018
    tokens, mask = (torch.from_numpy(np.asarray(part)).long() for part in (batch.tokens, batch.segments))
    outputs = [module.weight for name, module in peer.named_modules() if name.endswith(".self_attn.o_proj")]
    with torch.no_grad():
        for weight, of_layer in zip(outputs, kept or [], strict=kept is not None):
            weight.view(len(weight), len(of_layer), -1)[:, ~np.array(of_layer, bool)] = 0
        return peer(input_ids=tokens, attention_mask=mask).logits.numpy()[batch.segments > 0]


CASES = {
    **{family: (family, {}, MODEL) for family in tiny.OF_FAMILY},
    "llama_groups": ("llama", {}, GROUPS),
    "llama_as_mistral": ("llama", {**MANY, "rope_parameters": tiny.LLAMA3, "rope_theta": None}, ONE),
    "llama_biases_no_divisor": ("llama", {**MANY, "attention_bias": True}, ONE),
    "qwen2": ("qwen2", {}, EVENLY),
    "gemma3_text_no_divisor": ("gemma3_text", MANY, ONE),
    "phi3": ("phi3", PLAIN_PHI3, EVENLY),
    "phi3_long_rope": ("phi3", {}, [[1, 0, 1], [1, 1, 0], [0, 0, 1]]),
}
SHAPES = {
    "olmo2": (6, 2),
    "olmo3": (6, 2),
    "llama_groups": (3, 1),
    "llama_as_mistral": (5, 5),
    "llama_biases_no_divisor": (6, 6),
    "gemma3_text_no_divisor": (6, 6),
    "phi3_long_rope": (3, 1),
    "qwen2_5_vl": (2, 1),
    "idefics3": (3, 1),
    "qwen3_vl": (2, 1),
}
"""Case -> query and key heads of the result; of others 4 and 2."""


IMAGES = {
    "llava": (lambda path: tiny_tiles.folder(path, "clip"), {"decoder": MODEL[:2], "vision": [[1, 0], [0, 1]]}),
    "qwen2_5_vl": (qwen_vl.folder, {"decoder": [[1, 0], [0, 1]], "vision": [[1, 0], [1, 1], [0, 1], [1, 0]]}),
    "idefics3": (lambda path: tiny_tiles.folder(path, "idefics3"), {"decoder": GROUPS[:2]}),
    "gemma3": (lambda path: tiny_tiles.folder(path, "gemma3"), {"decoder": EVENLY[:2]}),
    "qwen3_vl": (qwen3_vl.folder, {"decoder": [[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0]]}),
}


@pytest.mark.parity
@pytest.mark.parametrize("case", [*CASES, *IMAGES])
def test_transformers_computes_with_the_export_what_it_does_without_the_heads_outputs(tmp_path, case):
    if case in CASES:
        family, changes, kept = CASES[case]
        path = folder(tmp_path / "hf", family, **changes)
    else:
        make, parts = IMAGES[case]
        path, kept = make(tmp_path / "hf"), parts["decoder"]
    opened, removal = removed(path, tmp_path / "out", {"decoder": kept})
    batch = tiny.rows(12, 7, width=12)._replace(tokens=tiny.rows(12, 7, width=12).tokens % 15)
    expected = peer_logits(path, batch, kept)
    np.testing.assert_allclose(peer_logits(tmp_path / "out", batch), expected, atol=1e-5)
    found, whole = text_of(removal.base.model.config), text_of(opened.model.config)
    assert (found.heads, found.kv_heads) == SHAPES.get(case, (4, 2))
    sizes = {"heads": whole.heads, "kv_heads": whole.kv_heads, "family": whole.family}
    assert dataclasses.replace(found, **sizes) == whole


def test_every_decoder_has_a_rule_and_a_case():
    assert set(HEAD_RULES) == set(DECODERS) | {"qwen2_5_vl"}
    assert {family for family, *_ in CASES.values()} == set(DECODERS)


@pytest.mark.parametrize("case", ["llama", "qwen2"])
def test_an_export_computes_what_gates_of_zero_do(tmp_path, case):
    batch = tiny.rows(12, 7, width=12)
    opened, removal = removed(folder(tmp_path / "hf", case), tmp_path / "out", {"decoder": MODEL})
    model, params = load_pretrained(tmp_path / "out")
    assert model.config == removal.base.model.config
    np.testing.assert_allclose(logits(model, params, batch), gated_logits(opened, {"decoder": MODEL}, batch), atol=1e-5)


@pytest.mark.parametrize("case", ["llava", "qwen2_5_vl"])
def test_heads_of_a_tower_give_nothing_after_an_export(tmp_path, case):
    make, kept = IMAGES[case]
    path = make(tmp_path / "hf")
    opened, _ = removed(path, tmp_path / "out", kept)
    processor = load_processor(path, opened.model.config)
    conversations = [tiny_tiles.conversation(tiny_tiles.picture(tmp_path / "a.png", 30, 14)), tiny_tiles.conversation()]
    batch, (model, params) = tiny_tiles.batch(processor, conversations, 64, 34), load_pretrained(tmp_path / "out")
    found, expected = logits(model, params, batch), gated_logits(opened, kept, batch)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(expected - gated_logits(opened, {"decoder": kept["decoder"]}, batch)).max() > 1e-3


def test_a_llama_of_another_model_type_keeps_what_its_config_took_by_default(tmp_path):
    text = {key: value for key, value in tiny_tiles.TEXT.items() if key not in ("rope_theta", "num_key_value_heads")}
    path = tiny_tiles.folder(tmp_path / "hf", "clip", text_config={"model_type": "llama", **text})
    opened, removal = removed(path, tmp_path / "out", {"decoder": ONE[:2]})
    whole, found = opened.model.config, removal.base.model.config
    assert found == dataclasses.replace(
        whole, text=dataclasses.replace(whole.text, family="mistral", heads=5, kv_heads=5)
    )
    written = json.loads((tmp_path / "out" / "config.json").read_text())["text_config"]
    assert written["hidden_act"] == "silu"
    assert (written["rope_theta"], written["sliding_window"], written["head_dim"]) == (10000.0, None, 4)
    assert removal.notes == (
        "decoder: 2 of 12 attention heads are removed; a layer has 5 query and 5 key and value heads in place of 6 and 6; its "
        "model_type is 'mistral', which computes the same, since transformers asks of 'llama' a number of heads that divides "
        "hidden_size.",
    )


def test_transformers_trusts_the_tokenizer_of_a_llama_of_another_model_type(tmp_path, caplog):
    from transformers import AutoTokenizer

    path = folder(tmp_path / "hf", "llama", **MANY, transformers_version="4.40.0")
    tiny_tiles.tokenizer().save_pretrained(path)
    removed(path, tmp_path / "out", {"decoder": ONE})
    AutoTokenizer.from_pretrained(tmp_path / "out")
    assert not caplog.records


def test_notes_name_zeros_and_the_reason_for_shapes_that_stay(tmp_path):
    uneven = remove_heads(open_pretrained(folder(tmp_path / "a", "qwen3")), {"decoder": np.array(MODEL, bool)})
    assert uneven.notes == (
        "decoder: 10 of 18 attention heads are removed; a layer has 4 query and 2 key and value heads in place of 6 and 2, 4 of "
        "all 12 query heads being zeros, since the layers keep different heads.",
    )
    kept = {"decoder": np.array([[1, 1, 0], [1, 1, 1], [0, 0, 1]], bool)}
    (full,) = remove_heads(open_pretrained(folder(tmp_path / "b", "phi3")), kept).notes
    assert full.endswith(
        "no smaller number of heads holds those of every layer and leaves hidden_size / num_attention_heads "
        "as it was, for LongRoPE, as transformers asks."
    )
    path, parts = qwen_vl.folder(tmp_path / "c"), IMAGES["qwen2_5_vl"][1]
    decoder, vision = remove_heads(open_pretrained(path), {part: np.array(m, bool) for part, m in parts.items()}).notes
    assert decoder.startswith(
        "decoder: 2 of 4 attention heads are removed; zeros in the output projection stand for them"
    )
    assert vision.startswith("vision: 3 of 8 attention heads are removed; zeros")
    assert "the width of a tower" in vision


def test_shapes_stay_where_no_smaller_ones_are_asked_for(tmp_path):
    opened = open_pretrained(folder(tmp_path / "hf", "llama"))
    removal = remove_heads(opened, {"decoder": np.array(EVENLY, bool)}, smaller=False)
    assert removal.base is opened
    assert removal.notes[0].endswith("the shapes stay: no smaller ones were asked for.")
    before, path = opened.read("layers/attention/output/kernel"), "layers/attention/output/kernel"
    expected = np.where(np.repeat(np.array(EVENLY, bool), 4, axis=1)[..., None], before, 0)
    np.testing.assert_array_equal(removal.reader(opened.read)(path), expected)


def test_nothing_removed_changes_nothing(tmp_path):
    path = folder(tmp_path / "hf", "llama")
    opened, removal = removed(path, tmp_path / "out", {"decoder": np.ones((3, 6))})
    assert (removal.base, removal.changes, removal.notes) == (opened, {}, ())
    assert (tmp_path / "out" / "config.json").read_bytes() == (path / "config.json").read_bytes()


def test_masks_that_do_not_fit_and_leaves_of_old_shapes_are_refused(tmp_path):
    opened = open_pretrained(folder(tmp_path / "hf", "llama"))
    with pytest.raises(ValueError, match="heads of 'vision': this model has heads in decoder"):
        remove_heads(opened, {"vision": np.ones((3, 6), bool)})
    for mask in (np.ones((3, 5), bool), np.ones((3, 6))):
        with pytest.raises(ValueError, match=r"heads of 'decoder' have type .*; expected bool \(3, 6\)"):
            remove_heads(opened, {"decoder": mask})
    removal = remove_heads(opened, {"decoder": np.array(EVENLY, bool)})
    with pytest.raises(ValueError, match=r"read its leaf through Removal\.reader"):
        removal.base.read("layers/attention/query/kernel")
