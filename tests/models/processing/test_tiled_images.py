"""Reading images as tiles: rows of a batch, expansions, checkpoints of both layouts, what is refused."""

import dataclasses
import json
import pickle

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file

import tests.support.tiny as tiny
import tests.support.tiny_tiles as tiny_tiles
from merit_jax.core.types import ImageReader, PackedExample
from merit_jax.models import build, export_hf, load_pretrained, open_pretrained, read_config
from merit_jax.models.families.registry import parse_config
from merit_jax.models.modules.projector import shuffle
from merit_jax.models.pretrained.processor import load_processor
from merit_jax.models.processing import tiled_images
from merit_jax.models.processing.image_loading import open_image
from merit_jax.models.processing.tiled_images import patches

LLAVA_7B = {
    "model_type": "llava",
    "architectures": ["LlavaForConditionalGeneration"],
    "ignore_index": -100,
    "image_token_index": 32000,
    "pad_token_id": 32001,
    "projector_hidden_act": "gelu",
    "text_config": {
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "rms_norm_eps": 1e-05,
        "torch_dtype": "float16",
        "vocab_size": 32064,
    },
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "model_type": "clip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
        "vocab_size": 32000,
    },
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "vocab_size": 32064,
}
SMOLVLM_256M = {
    "model_type": "idefics3",
    "architectures": ["Idefics3ForConditionalGeneration"],
    "image_token_id": 49190,
    "scale_factor": 4,
    "text_config": {
        "architectures": ["VLlama3ForCausalLM"],
        "head_dim": 64,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "is_llama_config": True,
        "max_position_embeddings": 8192,
        "model_type": "llama",
        "num_attention_heads": 9,
        "num_hidden_layers": 30,
        "num_key_value_heads": 3,
        "pad_token_id": 2,
        "pixel_shuffle_factor": 4,
        "qk_layer_norms": False,
        "rms_norm_eps": 1e-05,
        "rope_interleaved": False,
        "rope_theta": 100000,
        "torch_dtype": "bfloat16",
        "use_resampler": False,
        "vocab_size": 49280,
    },
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vision_config": {
        "hidden_size": 768,
        "image_size": 512,
        "max_image_size": {"longest_edge": 512},
        "model_type": "idefics3_vision",
        "num_attention_heads": 12,
        "patch_size": 16,
        "size": {"longest_edge": 2048},
        "tie_word_embeddings": False,
        "use_base_siglip": True,
    },
    "vocab_size": 49280,
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Per kind: (folder, model, params, processor, references to images of 30x14, 10x33 and 40x40 pixels)."""
    made = {}

    def make(kind):
        if kind not in made:
            path = tmp_path_factory.mktemp(kind)
            sizes = [(30, 14), (10, 33), (40, 40)]
            images = [tiny_tiles.picture(path / f"{n}.png", *size, seed=n) for n, size in enumerate(sizes)]
            model, params = load_pretrained(tiny_tiles.folder(path / "hf", kind))
            processor = load_processor(path / "hf", model.config)
            made[kind] = path / "hf", tiny.compiled(model), params, processor, images
        return made[kind]

    return make


def place(processor, *conversations, cut=None):
    """Conversations one after the other in a row, the last one cut to `cut` tokens."""
    placed, start = [], 0
    for number, messages in enumerate(conversations, start=1):
        ids = tiny_tiles.encode(processor, messages)
        ids = ids[: cut if number == len(conversations) else None]
        placed.append(PackedExample(start, tiny_tiles.example(ids, messages)))
        start += len(ids)
    return placed


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def test_published_llava_7b_has_its_number_of_parameters():
    config = parse_config(LLAVA_7B, "config.json")
    assert (config.vision.depth, config.vision.vectors) == (23, 576)
    assert count(build(config).abstract) == 7_063_427_072


def test_published_smolvlm_256m_has_its_numbers_of_parameters():
    config = parse_config(SMOLVLM_256M, "config.json")
    found = build(config).abstract
    assert count(found) == 256_484_928
    assert count(found["vision"]) == 86_433_024
    assert count(found["projector"]) == 7_077_888


def test_qwen2_behind_a_clip_tower_is_one_config():
    text = {"model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28}
    text |= {"num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064, "rope_theta": 1e6}
    found = build(parse_config({**LLAVA_7B, "text_config": text}, "config.json"))
    assert count(found.abstract["decoder"]) == 7_615_616_512


@pytest.mark.parametrize("kind", tiny_tiles.KINDS)
def test_readers_satisfy_the_protocol_and_survive_pickling(opened, kind):
    _, _, _, processor, images = opened(kind)
    assert isinstance(processor.images, ImageReader)
    json.dumps(processor.images.settings)
    again = pickle.loads(pickle.dumps(processor.images))
    assert again.settings == processor.images.settings
    assert again.expansion(images[0], 1) == processor.images.expansion(images[0], 1)


@pytest.mark.parametrize("kind", ["clip", "smolvlm"])
def test_padding_gives_finite_hidden_states_and_changes_none(opened, kind):
    _, model, params, processor, images = opened(kind)
    small = tiny_tiles.batch(processor, [tiny_tiles.conversation(images[0])], 60, 16)
    wide = tiny_tiles.batch(processor, [tiny_tiles.conversation(images[0])], 60, 64)
    blank = jax.tree.map(np.zeros_like, wide)
    found = np.asarray(model.hidden(params, jax.tree.map(lambda a, b: np.concatenate([a, b]), wide, blank)))
    assert np.isfinite(found).all()
    real = small.segments[0] > 0
    np.testing.assert_allclose(found[0][real], np.asarray(model.hidden(params, small))[0][real], atol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "smolvlm"])
def test_packed_examples_see_their_own_images(opened, kind):
    _, model, params, processor, images = opened(kind)
    conversations = [
        tiny_tiles.conversation(*images[:2]),
        tiny_tiles.conversation(),
        tiny_tiles.conversation(images[2]),
    ]
    alone = [tiny_tiles.batch(processor, [one], 60, 48) for one in conversations]
    placed, row = place(processor, *conversations), tiny.Rows(*np.zeros((3, 1, 120), np.int32))
    for number, (start, example) in enumerate(placed, start=1):
        length = len(example.tokens) - 1
        for field, values in zip(row, (example.tokens[:-1], np.arange(length), number), strict=False):
            field[0, start : start + length] = values
    packed = row._replace(images=jax.tree.map(lambda leaf: leaf[None], processor.images.row(placed, 120, 96)))
    found = np.asarray(model.hidden(params, packed))[0]
    for (start, example), one in zip(placed, alone, strict=True):
        expected = np.asarray(model.hidden(params, one))[0, : len(example.tokens) - 1]
        np.testing.assert_allclose(found[start : start + len(expected)], expected, atol=1e-5)


def test_images_behind_the_cut_are_not_read_and_surplus_features_are_dropped(opened):
    _, _, _, processor, images = opened("smolvlm")
    gone = {"type": "image", "path": "nowhere.png"}
    conversation = tiny_tiles.conversation(images[2])  # 4 tiles and the whole, of 4 tokens each
    placed = place(processor, conversation, cut=1 + 6 * 2 + 4)  # user: and two tiles, then two tokens of the third
    example = placed[0].example._replace(images=(images[2], gone))
    tokens = example.tokens[:-1]
    assert processor.images.count(tokens) == 10
    row = processor.images.row([PackedExample(5, example)], 60, 20)
    np.testing.assert_array_equal(row.slots[row.valid], 5 + np.flatnonzero(tokens == len(tiny_tiles.WORDS)))
    assert row.pixels.any((1, 2)).tolist() == [True, True, True, False, False]
    assert row.mask.any((1, 2)).tolist() == [True, True, True, False, False]


def test_whole_tiles_go_before_cut_ones(opened):
    _, _, _, processor, images = opened("smolvlm")
    conversation = tiny_tiles.conversation(images[2])
    cut = place(processor, conversation, cut=3 + 1)[0]  # one token of the first tile
    whole = place(processor, conversation)[0]._replace(start=10)
    row = processor.images.row([cut, cut, whole], 60, 20)
    assert row.valid.all()
    assert row.slots.min() > 10


def test_more_image_tokens_than_features_are_refused(opened):
    _, _, _, processor, images = opened("clip")
    placed = place(processor, tiny_tiles.conversation(*images[:2]))[0]
    example = placed.example._replace(images=(images[0],))
    with pytest.raises(ValueError, match=r"16 of an example's '<image>' tokens stand for no image.*0\.png"):
        processor.images.row([placed._replace(example=example)], 60, 48)


@pytest.mark.parametrize("kind", tiny_tiles.KINDS)
def test_check_names_the_image(opened, tmp_path, kind):
    reader = opened(kind)[3].images
    (tmp_path / "empty.png").write_bytes(b"")
    reader.check(opened(kind)[4][0])
    with pytest.raises(ValueError, match=r"empty\.png"):
        reader.check({"type": "image", "path": str(tmp_path / "empty.png")})


@pytest.mark.parametrize("splitting", [True, False])
@pytest.mark.parametrize("kind", ["idefics3", "smolvlm"])
def test_expansion_is_that_of_transformers(tmp_path, kind, splitting):
    from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

    options = {"do_image_splitting": splitting, "size": {"longest_edge": 52}}
    path = tiny_tiles.folder(tmp_path / "hf", kind, images=options)
    reader = load_processor(path, read_config(path)).images
    for number, size in enumerate([(5, 5), (16, 16), (17, 16), (64, 3), (1, 90), (52, 40), (49, 33), (20, 61)]):
        image = tiny_tiles.picture(tmp_path / f"{number}.png", *size)
        made = reader.processor([[open_image(image)]], return_row_col_info=True, return_tensors="np")
        (rows,), (columns,) = made["rows"][0:1][0], made["cols"][0:1][0]
        names = ("<fake_token_around_image>", "<image>", "<global-img>")
        assert reader.expansion(image, 1) == get_image_prompt_string(rows, columns, 4, *names), size
        assert len(reader.process(open_image(image))) == reader.tiles(*size) == made["pixel_values"].shape[1]


@pytest.mark.parametrize(
    ("kind", "images", "size"),
    [("clip", {}, (1, 5000)), ("idefics3", {"size": {"longest_edge": 10_000}}, (9, 9))],
)
def test_an_image_that_would_grow_beyond_measure_is_refused_by_name(tmp_path, monkeypatch, kind, images, size):
    monkeypatch.setattr(tiled_images, "MAX_PIXELS", 2**20)
    path = tiny_tiles.folder(tmp_path / "hf", kind, images=images)
    reader = load_processor(path, read_config(path)).images
    image = tiny_tiles.picture(tmp_path / "thin.png", *size)
    with pytest.raises(
        ValueError, match=rf"thin\.png: an image of {size[0]} x {size[1]} would be resized to \d+ pixels"
    ):
        reader.check(image)


def test_a_small_image_is_one_tile(tmp_path):
    path = tiny_tiles.folder(tmp_path / "hf", "idefics3", images={"do_resize": False})
    reader = load_processor(path, read_config(path)).images
    image = tiny_tiles.picture(tmp_path / "0.png", 9, 16)
    assert (
        reader.expansion(image, 1)
        == "<fake_token_around_image><global-img>" + "<image>" * 4 + "<fake_token_around_image>"
    )


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_llava_takes_the_tower_names_of_published_checkpoints_and_writes_them_back(tmp_path, kind):
    weights = tiny_tiles.tensors(kind)
    published = {key.replace("vision_tower.", "vision_tower.vision_model."): value for key, value in weights.items()}
    published["vision_tower.vision_model.embeddings.position_ids"] = np.arange(16, dtype=np.float32)[None]
    if kind == "siglip":
        published["vision_tower.vision_model.head.probe"] = np.ones((1, 1, 16), np.float32)
    new = load_pretrained(tiny_tiles.folder(tmp_path / "new", kind, weights=weights))[1]
    old = load_pretrained(tiny_tiles.folder(tmp_path / "old", kind, weights=published))[1]
    jax.tree.map(np.testing.assert_array_equal, new, old)
    export_hf(tmp_path / "out", flatten_dict(old, sep="/").__getitem__, tmp_path / "old")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == published.keys()
    for key, value in published.items():
        np.testing.assert_array_equal(written[key], value, err_msg=key)


@pytest.mark.parametrize("kind", ["clip", "smolvlm"])
@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_tensors_are_matched_strictly(tmp_path, kind, change):
    weights = tiny_tiles.tensors(kind)
    last = sorted(key for key in weights if "vision" in key)[-1]
    if change == "missing":
        del weights[last]
    else:
        weights[last + "x"] = np.zeros(3, np.float32)
    path = tiny_tiles.folder(tmp_path / "hf", kind, weights=weights)
    with pytest.raises(ValueError, match=f"tensor '{last}"):
        open_pretrained(path)


def test_tied_unembedding_of_the_text_part_counts_for_llava():
    raw = tiny_tiles.hf_config("clip")
    raw["text_config"]["tie_word_embeddings"] = True
    assert parse_config(raw, "config.json").text.tied


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("clip", {"vision_config": {"model_type": "resnet"}}, "vision_config: model_type"),
        ("clip", {"vision_config": {"model_type": "dinov2"}}, "vision_config: model_type = 'dinov2'"),
        ("clip", {"vision_config": None}, "vision_config = None"),
        ("clip", {"text_config": {"model_type": "gpt2"}}, "text_config: model_type = 'gpt2'"),
        ("clip", {"vision_feature_layer": [-2, -1]}, "vision_feature_layer"),
        ("clip", {"vision_feature_layer": 9}, "vision_feature_layer = 9"),
        ("clip", {"projector_hidden_act": "relu"}, "activation = 'relu'"),
        ("clip", {"image_token_index": 1000}, "image token 1000"),
        ("smolvlm", {"scale_factor": 3}, "scale_factor = 3"),
        ("smolvlm", {"quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_configs_that_ask_for_something_else_are_refused(kind, change, message):
    with pytest.raises(ValueError, match=rf"^here.*{message}"):
        parse_config(tiny_tiles.hf_config(kind, **change), "here")


@pytest.mark.parametrize(
    ("kind", "images", "message"),
    [
        (
            "clip",
            {"crop_size": {"height": 20, "width": 16}},
            "makes images of 20 x 16 pixels, the vision tower takes 16 x 16",
        ),
        ("siglip", {"size": {"height": 8, "width": 8}}, "makes images of 8 x 8 pixels"),
        (
            "smolvlm",
            {"max_image_size": {"height": 16, "width": 16}},
            r"max_image_size = .*'height': 16.* has no longest_edge, the side of a tile; set it to .\"longest_edge\": 16",
        ),
        ("idefics3", {"size": {"shortest_edge": 32}}, "size in preprocessor_config.json has neither longest_edge nor"),
        ("smolvlm", {"max_image_size": {"longest_edge": 20}}, "makes tiles of 20 pixels, the vision tower takes 16"),
        ("smolvlm", {"image_processor_type": "Nothing"}, "no image processor"),
    ],
)
def test_image_processors_that_do_not_fit_the_tower_are_refused(tmp_path, kind, images, message):
    path = tiny_tiles.folder(tmp_path / "hf", kind, images=images)
    with pytest.raises(ValueError, match=message):
        load_processor(path, read_config(path))


def test_switches_change_no_feature(opened):
    _, model, params, processor, images = opened("clip")
    batch = tiny_tiles.batch(processor, [tiny_tiles.conversation(images[0])], 40, 16)
    expected = tiny_tiles.features(model, params, batch.images)
    other = dataclasses.replace(model, config=build(model.config, remat="full", scan_unroll=2).config)
    np.testing.assert_allclose(tiny_tiles.features(other, params, batch.images), expected, atol=1e-6)


def test_patches_are_cut_line_by_line_and_the_rest_dropped():
    pixels = np.arange(2 * 3 * 5 * 7, dtype=np.float32).reshape(2, 3, 5, 7)
    found = patches(pixels, 2)
    assert found.shape == (2, 6, 12)
    np.testing.assert_array_equal(found[1, 4], pixels[1, :, 2:4, 2:4].ravel())


def test_shuffle_joins_squares_of_patches():
    x = np.arange(16.0)[None, None, :, None]
    assert shuffle(x, 2)[0, 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
