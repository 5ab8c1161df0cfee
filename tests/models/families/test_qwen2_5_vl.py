"""The laws of Qwen2.5-VL that need no PyTorch: packing, cache, reading of images and configs."""

import copy
import json
import pickle

import jax
import numpy as np
import pytest
from PIL import Image

import tests.support.tiny as tiny
import tests.support.tiny_qwen_vl as qwen
from merit_jax.core.types import Example, ImageReader, PackedExample
from merit_jax.models import build, export_hf, load_pretrained, read_config
from merit_jax.models.families.registry import parse_config
from merit_jax.models.modules import attention, chunked_attention, patch_attention
from merit_jax.models.modules.attention import Seen
from merit_jax.models.pretrained.processor import load_processor
from merit_jax.models.processing.qwen2_5_vl_images import mrope_positions, window_order
from tests.support import image_checks
from tests.support.tiny_tiles import batch, conversation, encode, example

WIDTH, ROOM = 64, 44
IMAGE = qwen.hf_config()["image_token_id"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(folder, model, params, processor, references to images of 3 x 5, 2 x 8 and 8 x 4 tokens)."""
    path = qwen.folder(tmp_path_factory.mktemp("qwen") / "hf")
    return image_checks.opened(path, [(25, 43), (17, 60), (130, 70)])


def test_packed_conversations_score_as_they_do_alone(world):
    image_checks.packed_conversations_score_as_they_do_alone(world, WIDTH, ROOM, atol=1e-5)


def test_a_cached_prompt_with_images_goes_on_as_the_whole_conversation_does(world):
    cache = image_checks.a_cached_prompt_goes_on_as_the_whole_conversation_does(world, WIDTH, ROOM, 1e-5)
    assert cache.offset.shape == (1, 3)
    assert (cache.offset[0, :2] < 0).all()
    assert cache.offset[0, 2] == 0


def test_text_needs_no_images_and_padding_changes_nothing(world):
    _, model, params, processor, _ = world
    with_padding = batch(processor, [conversation()], WIDTH, ROOM)
    assert not any(leaf.any() for leaf in jax.tree.leaves(with_padding.images._replace(positions=None)))
    np.testing.assert_allclose(
        tiny.logits(model, params, with_padding._replace(images=None))[0, :10],
        tiny.logits(model, params, with_padding)[0, :10],
        atol=1e-6,
    )


def test_a_frozen_tower_has_no_backward_pass(world, monkeypatch):
    _, model, params, processor, pictures = world

    @jax.custom_vjp
    def forward_only(query):
        return query

    def refuse(*_):
        raise AssertionError("differentiated")

    forward_only.defvjp(lambda query: (query, None), refuse)
    monkeypatch.setattr(patch_attention, "attend", lambda query, *_: Seen(forward_only(query), None))
    monkeypatch.setattr(
        "merit_jax.models.modules.qwen2_5_vit.attend", lambda query, *_: Seen(forward_only(query), None)
    )
    rows = batch(processor, [conversation(pictures[0])], WIDTH, ROOM)
    fresh = build(model.config)

    def loss(trained, frozen):
        return fresh.unembed(trained | frozen, fresh.hidden(trained | frozen, rows)).var()

    parts = {name: {name: params[name]} for name in params}
    text = parts["projector"] | parts["decoder"]
    grads = jax.eval_shape(jax.grad(loss), text, parts["vision"])
    assert set(grads) == {"projector", "decoder"}
    with pytest.raises(AssertionError, match="differentiated"):
        jax.eval_shape(jax.grad(loss), parts["vision"], text)


def test_switches_reach_all_parts_and_change_nothing(world):
    path, model, params, processor, pictures = world
    config = read_config(path, remat="full", scan_unroll=True, dtype="bfloat16", attention="xla")
    for part in (config.text, config.vision, config.projector):
        assert (part.remat, part.scan_unroll, part.dtype, part.attention) == ("full", True, "bfloat16", "xla")
    rows = batch(processor, [conversation(pictures[0])], WIDTH, ROOM)
    other = build(model.config, remat="full", scan_unroll=True)
    np.testing.assert_allclose(tiny.logits(other, params, rows), tiny.logits(model, params, rows), atol=1e-5)
    with pytest.raises(ValueError, match=r"unknown model option 'vocab_size'.*remat"):
        build(model.config, vocab_size=3)


def test_a_large_row_equals_a_small_one(world, monkeypatch):
    _, model, params, processor, pictures = world
    rows = batch(processor, [conversation(*pictures[:2])], WIDTH, ROOM)
    expected = tiny.logits(model, params, rows)
    monkeypatch.setitem(attention.LONGEST, "auto", 16)
    monkeypatch.setattr(chunked_attention, "BLOCK", 32)
    np.testing.assert_allclose(tiny.logits(build(model.config), params, rows), expected, atol=1e-5)


def test_an_export_has_the_tensors_of_its_base(world, tmp_path):
    path, model, params, *_ = world
    leaves = jax.tree_util.tree_leaves_with_path(params)
    flat = {"/".join(key.key for key in keys): leaf for keys, leaf in leaves}
    export_hf(tmp_path / "out", flat.__getitem__, path)
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        base, made = (folder / name for folder in (path, tmp_path / "out"))
        assert name == "model.safetensors" or base.read_text() == made.read_text()
    again, found = load_pretrained(tmp_path / "out")
    assert again.config == model.config
    jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.parametrize(("name", "expected"), [("3B", 3_754_622_976), ("7B", 8_292_166_656)])
def test_published_models_have_their_published_size(name, expected):
    vision = {"3B": 668_684_288, "7B": 676_550_144}[name]
    abstract = build(parse_config(qwen.PUBLISHED[name], "config.json"), param_dtype="bfloat16").abstract
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract)) == expected
    assert sum(leaf.size for leaf in jax.tree.leaves([abstract["vision"], abstract["projector"]])) == vision


def test_old_and_new_layouts_of_the_config_are_one():
    old = qwen.PUBLISHED["3B"]
    text = {key: value for key, value in old.items() if key not in ("vision_config", "rope_theta", "rope_scaling")}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    text |= {"model_type": "qwen2_5_vl_text", "layer_types": ["full_attention"] * 36, "sliding_window": None}
    vision = {**old["vision_config"], "model_type": "qwen2_5_vl_vision", "rope_parameters": {"rope_type": "axial"}}
    new = {"model_type": "qwen2_5_vl", "text_config": text, "vision_config": vision, "image_token_id": 151655}
    assert parse_config({**new, "tie_word_embeddings": True}, "new") == parse_config(old, "old")
    assert parse_config(new, "tied inside text_config").text.tied


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("vision_config", "model_type", "siglip", "vision_config: model_type = 'siglip' is not supported"),
        ("vision_config", "hidden_act", "gelu", "vision_config: hidden_act = 'gelu' is not supported; expected 'silu'"),
        ("vision_config", "patch_size", None, "that transformers can read: .*'patch_size'"),
        ("vision_config", "out_hidden_size", 16, "out_hidden_size = 16 is not supported; expected 32"),
        ("vision_config", "out_hidden_size", None, "that transformers can read: .*'out_hidden_size'"),
        ("vision_config", "window_size", 7, "vision_config: window_size = 7 is smaller than one token of 8 pixels"),
        ("vision_config", "num_heads", 16, "must be a multiple of 4 wide"),
        ("vision_config", "fullatt_block_indexes", None, "that transformers can read: .*'fullatt_block_indexes'"),
        ("vision_config", "rope_parameters", {"rope_type": "linear", "factor": 2.0}, "rope_type = 'linear' is not"),
        ("vision_config", "rope_scaling", {"rope_type": "linear", "factor": 2.0}, "rope_type = 'linear' is not"),
        ("vision_config", "is_causal", True, "vision_config: is_causal = True is not supported; expected False"),
        (None, "vision_config", None, "vision_config = None; expected a dictionary"),
        (None, "rope_scaling", {"type": "mrope"}, "mrope_section = None; expected three whole numbers"),
        (
            None,
            "rope_scaling",
            {"type": "yarn", "factor": 2.0, "mrope_section": [2, 3, 3]},
            "type = 'yarn' is not supported",
        ),
        (None, "rope_scaling", {"type": "mrope", "mrope_section": [1, 1, 1]}, "sums to 3, but a head has"),
        (None, "image_token_id", 10**6, "the image token 1000000 is not among 19 tokens"),
    ],
)
def test_what_the_model_does_not_do_is_refused_by_name(part, key, value, message):
    raw = copy.deepcopy(qwen.hf_config())
    (raw if part is None else raw[part])[key] = value
    with pytest.raises(ValueError, match=message) as error:
        parse_config(raw, "config.json")
    assert str(error.value).startswith("config.json: ")


def test_rope_theta_of_the_tower_is_read_where_transformers_reads_it():
    for key, value in (("rope_theta", 77.0), ("rope_parameters", {"rope_type": "axial", "rope_theta": 77.0})):
        raw = qwen.hf_config(vision_config={**qwen.VISION, key: value})
        assert parse_config(raw, "config.json").vision.rope_theta == 77.0


def test_layers_of_the_decoder_have_windows_from_the_one_that_the_config_names():
    assert not parse_config(qwen.hf_config(use_sliding_window=True), "config.json").text.kinds
    raw = qwen.hf_config(use_sliding_window=True, max_window_layers=1)
    assert [kind.window for kind in parse_config(raw, "config.json").text.kinds] == [0, 64]


def test_windows_are_squares_row_by_row_and_smaller_at_the_edges():
    order, windows = window_order(3, 5, 2)
    image = np.zeros((3, 5), int)
    image[order // 5, order % 5] = windows
    assert image.tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    assert order.tolist() == [0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14]


def test_text_after_an_image_goes_on_behind_its_longer_side():
    found = mrope_positions(11, [(2, 2, 3)])
    assert found[:2].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert found[2:8].tolist() == [[2, 2 + row, 2 + column] for row in range(2) for column in range(3)]
    assert found[8:].tolist() == [[5, 5, 5], [6, 6, 6], [7, 7, 7]]


def test_the_reader_is_one_of_merit_jax_and_travels_to_other_processes(world):
    *_, processor, pictures = world
    reader = pickle.loads(pickle.dumps(processor.images))
    assert isinstance(reader, ImageReader)
    assert json.loads(json.dumps(reader.settings)) == reader.settings
    assert reader.settings["size"] == [4 * 8 * 8, qwen.MAX_PIXELS]
    assert reader.expansion(pictures[0], 1) == "<|image_pad|>" * 15
    assert reader.count(np.array([1, IMAGE, IMAGE], np.int32)) == 2


def test_token_counts_from_the_size_alone_are_the_processors(world, tmp_path):
    path, *_, processor, _ = world
    from transformers import AutoImageProcessor

    peer = AutoImageProcessor.from_pretrained(path, backend="pil")
    for height, width in [(1, 1), (8, 100), (36, 36), (300, 20), (41, 39)]:
        Image.new("RGB", (width, height)).save(tmp_path / "image.png")
        rows, columns = processor.images.grid({"type": "image", "path": str(tmp_path / "image.png")})
        assert rows * columns == peer.get_number_of_image_patches(height, width) // 4


def test_of_a_cut_image_only_the_tokens_that_are_left_are_shown(world):
    *_, processor, pictures = world
    messages = conversation(pictures[0], pictures[1])
    ids = encode(processor, messages)
    whole = processor.images.row([PackedExample(0, example(ids, messages))], WIDTH, ROOM)
    end = int(np.flatnonzero(ids == IMAGE)[6])
    missing = {"type": "image", "path": "/nowhere.png"}
    shorter = Example(ids[: end + 1], np.ones(end + 1, bool), (pictures[0], missing))
    cut = processor.images.row([PackedExample(3, shorter)], WIDTH, 6)
    kept = (whole.valid > 0) & (whole.slots < end)
    np.testing.assert_array_equal(cut.slots - 3, whole.slots[kept])
    patches = np.repeat(kept, 4)
    np.testing.assert_array_equal(cut.patches, whole.patches[patches])
    np.testing.assert_array_equal(cut.coordinates, whole.coordinates[patches])
    np.testing.assert_array_equal(cut.positions[3 : 3 + end], whole.positions[:end])


def test_images_that_do_not_fit_their_tokens_or_the_row_are_named(world, tmp_path):
    *_, processor, pictures = world
    messages = conversation(pictures[0])
    ids = encode(processor, messages)

    def read(ids, images, room=ROOM):
        placed = PackedExample(0, Example(ids, np.ones(len(ids), bool), tuple(images)))
        return processor.images.row([placed], WIDTH, room)

    with pytest.raises(ValueError, match=r"15 image tokens and room for 14; allow more .*longest_edge"):
        read(ids, [pictures[0]], room=14)
    with pytest.raises(ValueError, match=r"1\.png: the image has 2 x 8 tokens, but 15 .*delete the token cache"):
        read(ids, [pictures[1]])
    with pytest.raises(ValueError, match="15 image tokens of an example belong to none of its 0 images"):
        read(ids, [])
    Image.new("RGB", (900, 3)).save(tmp_path / "thin.png")
    with pytest.raises(ValueError, match=r"thin\.png: absolute aspect ratio must be smaller than 200"):
        processor.images.check({"type": "image", "path": str(tmp_path / "thin.png")})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 14}, "patch_size = 14 in preprocessor_config.json; the model needs 4"),
        ({"merge_size": 1}, "merge_size = 1 in preprocessor_config.json; the model needs 2"),
        ({"do_resize": False}, "do_resize = False in preprocessor_config.json; the model needs True"),
        ({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 9}}, "is CLIPImageProcessorPil"),
        ({"image_processor_type": "OneFormerImageProcessor"}, "'OneFormerImageProcessor'; expected one of"),
    ],
)
def test_an_image_processor_of_another_model_is_refused(tmp_path, changes, message):
    path = qwen.folder(tmp_path / "hf", images=changes)
    with pytest.raises(ValueError, match=message):
        load_processor(path, read_config(path))


def test_an_image_that_would_grow_beyond_measure_is_refused_by_name(tmp_path):
    path = qwen.folder(tmp_path / "hf", images={"min_pixels": 10**12, "max_pixels": 10**12})
    Image.new("RGB", (9, 9)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match=r"small\.png: it would be resized to \d+ x \d+, at most"):
        load_processor(path, read_config(path)).images.check({"type": "image", "path": str(tmp_path / "small.png")})


def test_a_folder_without_an_image_processor_is_refused(tmp_path):
    path = qwen.folder(tmp_path / "hf")
    (path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="the folder has no image processor that can be read"):
        load_processor(path, read_config(path))
