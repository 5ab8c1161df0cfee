"""The laws of Gemma 3 with images that need no PyTorch: blocks of image tokens, packing, cache, reading of images and configs."""

import copy
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import tests.support.tiny_tiles as tiny_tiles
from merit_jax import configs
from merit_jax.models import build, read_config
from merit_jax.models.families.registry import parse_config
from merit_jax.models.io.tensor_names import canonical_names
from merit_jax.models.modules.visible import image_blocks
from merit_jax.models.pretrained.processor import load_processor
from tests.support import image_checks
from tests.support.tiny_tiles import batch, conversation

WIDTH, ROOM = 64, 16
ARCHITECTURES = Path(configs.__file__).parent / "architectures"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(folder, model, params, processor, references to images)."""
    path = tiny_tiles.folder(tmp_path_factory.mktemp("gemma") / "hf", "gemma3")
    return image_checks.opened(path, [(30, 14), (10, 33), (40, 40)])


def test_packed_conversations_score_as_they_do_alone(world):
    image_checks.packed_conversations_score_as_they_do_alone(world, WIDTH, ROOM, atol=1e-4)


def test_a_cached_prompt_with_images_goes_on_as_the_whole_conversation_does(world):
    for slots in (WIDTH, WIDTH + 5):
        image_checks.a_cached_prompt_goes_on_as_the_whole_conversation_does(world, WIDTH, ROOM, 1e-4, slots)


def test_the_first_token_of_an_image_sees_its_last(world):
    _, model, params, processor, pictures = world
    rows = batch(processor, [conversation(pictures[0])], WIDTH, ROOM)
    (slots,) = np.nonzero(rows.tokens[0] == model.config.image_token)

    def moved(model):
        """How far hidden states move if the image's last feature is left out."""
        valid = rows.images.valid.copy()
        valid[0, len(slots) - 1] = False
        without = rows._replace(images=rows.images._replace(valid=valid))
        return np.abs(model.hidden(params, rows) - model.hidden(params, without))[0].max(axis=-1)

    causal = build(dataclasses.replace(model.config, image_blocks=False))
    assert (moved(model)[slots] > 1e-3).all()
    assert moved(causal)[slots[:-1]].max() == 0
    assert moved(model)[: slots[0]].max() == 0


def test_images_of_neighbouring_examples_and_padding_are_blocks_of_their_own():
    tokens, segments = np.array([[9, 9, 9, 1, 9, 9]]), np.array([[1, 1, 2, 2, 2, 0]])
    np.testing.assert_array_equal(image_blocks(tokens, segments, 9), [[1, 1, 2, 0, 3, 0]])


def test_image_features_are_not_scaled_as_text_is(world):
    _, model, params, processor, pictures = world
    rows = batch(processor, [conversation(pictures[0])], WIDTH, ROOM)
    module_features = tiny_tiles.features(model, params, rows.images)[rows.images.valid]
    vectors = tiny_tiles.vectors(model, params, rows)[0]
    image = rows.tokens[0] == model.config.image_token
    np.testing.assert_allclose(vectors[image], module_features, atol=1e-6)
    table = params["decoder"]["embed"]["embedding"][rows.tokens[0]]
    np.testing.assert_allclose(vectors[~image], table[~image] * np.sqrt(24), rtol=1e-5)


def test_an_image_is_written_as_the_processor_of_transformers_writes_it(world):
    *_, processor, pictures = world
    from transformers import Gemma3Processor

    peer = Gemma3Processor(processor.images.processor, tiny_tiles.tokenizer("gemma3"), image_seq_length=4)
    assert processor.images.expansion(pictures[0], 1) == peer.full_image_sequence
    text = processor.tokenizer.apply_chat_template(conversation(pictures[0], pictures[1]))
    assert text.count(peer.full_image_sequence) == 2


@pytest.mark.parametrize("token", ["<start_of_image>", "<image>"])
def test_a_text_with_a_token_that_stands_for_an_image_is_refused(world, token):
    *_, processor, _ = world
    with pytest.raises(ValueError, match=f"contains '{token}', which stands for an image; take it out"):
        processor.tokenizer.apply_chat_template([{"role": "user", "content": f"what is {token} ?"}])


def test_checkpoints_of_older_transformers_have_the_same_tensors():
    published = {
        "language_model.model.layers.0.mlp.up_proj.weight": "language_model.model.layers.0.mlp.up_proj.weight",
        "vision_tower.vision_model.post_layernorm.bias": "vision_tower.post_layernorm.bias",
        "multi_modal_projector.mm_soft_emb_norm.weight": "multi_modal_projector.mm_soft_emb_norm.weight",
    }
    in_memory = {
        "model.language_model.layers.0.mlp.up_proj.weight": "language_model.model.layers.0.mlp.up_proj.weight",
        "model.vision_tower.vision_model.post_layernorm.bias": "vision_tower.post_layernorm.bias",
        "model.multi_modal_projector.mm_soft_emb_norm.weight": "multi_modal_projector.mm_soft_emb_norm.weight",
        "lm_head.weight": "language_model.lm_head.weight",
    }
    for spelling in (published, in_memory):
        assert canonical_names("gemma3", spelling) == {new: old for old, new in spelling.items()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("4b", 4_300_079_472), ("12b", 12_187_325_040), ("27b", 27_432_406_640)],
)
def test_published_models_have_their_published_size(name, expected):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    raw = json.loads((ARCHITECTURES / f"gemma-3-{name}-it" / "config.json").read_text())
    config = parse_config(raw, name)
    abstract = build(config, param_dtype="bfloat16").abstract
    assert config.text.tied
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract)) == expected
    with torch.device("meta"):
        made = transformers.CONFIG_MAPPING["gemma3"].from_dict(copy.deepcopy(raw))
        peer = transformers.AutoModelForImageTextToText.from_config(made)
    assert sum(parameter.numel() for parameter in peer.parameters()) == expected


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        (
            None,
            "mm_tokens_per_image",
            5,
            "mm_tokens_per_image = 5; expected the square of a divisor of the 4 patches of a side",
        ),
        (None, "mm_tokens_per_image", 9, "mm_tokens_per_image = 9; expected the square"),
        (None, "image_token_index", 10**6, "the image token 1000000 is not among 25 tokens"),
        ("vision_config", "model_type", "clip_vision_model", "vision_config: model_type = 'clip_vision_model' is not"),
        ("text_config", "model_type", "llama", "text_config: model_type = 'llama' is not supported"),
        ("text_config", "use_bidirectional_attention", True, "use_bidirectional_attention = True is not supported"),
    ],
)
def test_what_the_model_does_not_do_is_refused_by_name(part, key, value, message):
    raw = copy.deepcopy(tiny_tiles.hf_config("gemma3"))
    (raw if part is None else raw[part])[key] = value
    with pytest.raises(ValueError, match=message) as error:
        parse_config(raw, "config.json")
    assert str(error.value).startswith("config.json: ")


def test_images_that_the_reader_does_not_make_are_refused(tmp_path):
    for name, changes, message in [
        ("pan", {"do_pan_and_scan": True}, "do_pan_and_scan = True in preprocessor_config.json is not supported"),
        ("size", {"size": {"height": 8, "width": 8}}, "makes images of 8 x 8 pixels, the vision tower takes 16 x 16"),
    ]:
        path = tiny_tiles.folder(tmp_path / name, "gemma3", images=changes)
        with pytest.raises(ValueError, match=message):
            load_processor(path, read_config(path))
    tiny_tiles.tokenizer().save_pretrained(tiny_tiles.folder(tmp_path / "tokens", "gemma3"))
    with pytest.raises(ValueError, match="the tokenizer names no boi_token and eoi_token"):
        load_processor(tmp_path / "tokens", read_config(tmp_path / "tokens"))
