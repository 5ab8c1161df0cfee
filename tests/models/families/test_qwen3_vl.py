"""The laws of Qwen3-VL that need no PyTorch: packing, cache, DeepStack, recomputation, reading of images and configs."""

import copy
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tests.support.tiny as tiny
import tests.support.tiny_qwen3_vl as qwen3
from merit_jax import configs
from merit_jax.core.types import Example, PackedExample
from merit_jax.models import build
from merit_jax.models.families.registry import parse_config
from merit_jax.models.modules import attention, chunked_attention
from merit_jax.models.modules.qwen3_vit import interpolated
from tests.support import image_checks
from tests.support.tiny_tiles import batch, conversation, encode, example

WIDTH, ROOM = 64, 44
ARCHITECTURES = Path(configs.__file__).parent / "architectures"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(folder, model, params, processor, references to images of 3 x 5, 2 x 8 and 8 x 4 tokens)."""
    path = qwen3.folder(tmp_path_factory.mktemp("qwen") / "hf")
    return image_checks.opened(path, [(25, 43), (17, 60), (130, 70)])


def test_packed_conversations_score_as_they_do_alone(world):
    image_checks.packed_conversations_score_as_they_do_alone(world, WIDTH, ROOM, atol=1e-4)


def test_a_cached_prompt_with_images_goes_on_as_the_whole_conversation_does(world):
    image_checks.a_cached_prompt_goes_on_as_the_whole_conversation_does(world, WIDTH, ROOM, 1e-4)


def test_recomputed_and_unrolled_layers_have_the_gradients_of_kept_ones(world):
    _, model, params, processor, pictures = world
    rows = batch(processor, [conversation(pictures[0])], WIDTH, ROOM)

    def gradients(**switches):
        made = build(model.config, **switches)
        return jax.jit(jax.grad(lambda p: made.unembed(p, made.hidden(p, rows)).var()))(params)

    expected = gradients()
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(expected["projector"]["deep"]))
    for found in (gradients(remat="full"), gradients(scan_unroll=True)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 + 1e-4 * np.abs(b).max()), found, expected)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_the_vectors_for_the_decoder_are_not_saved_block_by_block(world, remat):
    """Of DeepStack's vectors, what is kept for the backward pass does not grow with the number of blocks."""
    *_, processor, pictures = world
    rows = batch(processor, [conversation(pictures[0])], WIDTH, ROOM)
    deep = qwen3.hf_config(vision_config={**qwen3.VISION, "depth": 12, "deepstack_visual_indexes": [0, 1, 2]})
    model = build(parse_config(deep, "config.json"), remat=remat)
    jaxpr = jax.make_jaxpr(jax.grad(lambda p: model.hidden(p, rows).sum()))(model.abstract)
    shapes = {var.aval.shape for eqn in jaxpr.eqns for var in eqn.outvars}
    patches = rows.images.patches.shape[1]
    assert (12, 1, patches, 32) in shapes
    assert (12, 3, 1, patches, 32) not in shapes


def test_a_large_row_equals_a_small_one(world, monkeypatch):
    _, model, params, processor, pictures = world
    rows = batch(processor, [conversation(*pictures[:2])], WIDTH, ROOM)
    expected = tiny.logits(model, params, rows)
    monkeypatch.setitem(attention.LONGEST, "auto", 16)
    monkeypatch.setattr(chunked_attention, "BLOCK", 32)
    np.testing.assert_allclose(tiny.logits(build(model.config), params, rows), expected, atol=1e-4)


def test_text_needs_no_images_and_padding_changes_nothing(world):
    _, model, params, processor, _ = world
    rows = batch(processor, [conversation()], WIDTH, ROOM)
    found, expected = (tiny.logits(model, params, given)[0, :10] for given in (rows._replace(images=None), rows))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_inputs_of_every_kernel_are_counted_without_padding(world):
    _, model, params, processor, pictures = world
    rows = batch(processor, [conversation(pictures[0])], WIDTH, ROOM)
    grams, counts = model.input_grams(params, rows)
    tokens, patches = 15, 60
    assert counts["projector/deep/merger/input/kernel"].tolist() == [tokens] * 2
    assert counts["vision/blocks/attention/qkv/kernel"].tolist() == [patches] * 4
    assert grams["projector/deep/merger/input/kernel"].shape == (2, 4 * 32, 4 * 32)


def test_of_a_cut_image_the_tokens_that_are_left_keep_their_patches_and_grid(world):
    *_, processor, pictures = world
    messages = conversation(pictures[0])
    ids = encode(processor, messages)
    whole = processor.images.row([PackedExample(0, example(ids, messages))], WIDTH, ROOM)
    end = int(np.flatnonzero(ids == processor.images.config.image_token)[6])
    cut = processor.images.row(
        [PackedExample(3, Example(ids[: end + 1], np.ones(end + 1, bool), (pictures[0],)))], WIDTH, 6
    )
    np.testing.assert_array_equal(cut.slots - 3, whole.slots[:6])
    for name in ("patches", "coordinates", "segments", "grids"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name)[:24])
    assert cut.grids[0].tolist() == [6, 10]
    assert cut.windows is None


@pytest.mark.parametrize("side", [1, 6, 48])
def test_positions_are_those_of_torch_interpolate(side):
    torch = pytest.importorskip("torch")
    table = np.random.default_rng(0).normal(size=(side**2, 3)).astype(np.float32)
    for height, width in [(1, 1), (2, 14), (31, 6)]:
        places = np.stack(np.divmod(np.arange(height * width), width), axis=-1)[None]
        images = qwen3_rows(places, np.broadcast_to([height, width], places.shape))
        grid = torch.from_numpy(table).reshape(1, side, side, 3).permute(0, 3, 1, 2)
        expected = torch.nn.functional.interpolate(grid, (height, width), mode="bilinear", align_corners=True)
        found = interpolated(jnp.asarray(table), side, images)
        np.testing.assert_allclose(found[0], expected[0].permute(1, 2, 0).reshape(-1, 3), atol=2e-5)


def qwen3_rows(coordinates, grids):
    """Rows of images of which nothing but places and grids matters."""
    from merit_jax.models.modules.patch_rows import PatchRows

    segments = np.ones(coordinates.shape[:2], np.int32)
    none = np.zeros((1, 0), np.int32)
    return PatchRows(none, segments, None, grids, coordinates, none, none, none)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen3-VL-2B-Instruct", 2_127_532_032),
        ("Qwen3-VL-4B-Instruct", 4_437_815_808),
        ("Qwen3-VL-8B-Instruct", 8_767_123_696),
    ],
)
def test_published_models_have_their_published_size(name, expected):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    raw = json.loads((ARCHITECTURES / name / "config.json").read_text())
    abstract = build(parse_config(raw, name), param_dtype="bfloat16").abstract
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract)) == expected
    with torch.device("meta"):
        config = transformers.CONFIG_MAPPING["qwen3_vl"].from_dict(copy.deepcopy(raw))
        peer = transformers.AutoModelForImageTextToText.from_config(config)
    assert sum(parameter.numel() for parameter in peer.parameters()) == expected


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("vision_config", "model_type", "siglip", "vision_config: model_type = 'siglip' is not supported"),
        ("vision_config", "hidden_act", "relu", "vision_config: hidden_act = 'relu' is not supported"),
        ("vision_config", "out_hidden_size", 16, "out_hidden_size = 16 is not supported; expected 24"),
        ("vision_config", "deepstack_visual_indexes", [2, 0], "deepstack_visual_indexes.: expected growing numbers"),
        ("vision_config", "deepstack_visual_indexes", [0, 4], "deepstack_visual_indexes.: expected growing numbers"),
        ("vision_config", "deepstack_visual_indexes", [0, 1, 2, 3], "the decoder has only 3 layers"),
        ("vision_config", "num_heads", 16, "must be a multiple of 4 wide"),
        ("text_config", "rope_scaling", {"mrope_section": [1, 1, 1]}, "sums to 3, but a head has"),
        (
            "text_config",
            "rope_scaling",
            {"mrope_section": [4, 2, 2], "mrope_interleaved": False},
            "mrope_interleaved = False is not supported; expected True",
        ),
        (None, "image_token_id", 10**6, "the image token 1000000 is not among 19 tokens"),
        (None, "text_config", None, "text_config = None; expected a dictionary"),
    ],
)
def test_what_the_model_does_not_do_is_refused_by_name(part, key, value, message):
    raw = copy.deepcopy(qwen3.hf_config())
    (raw if part is None else raw[part])[key] = value
    with pytest.raises(ValueError, match=message) as error:
        parse_config(raw, "config.json")
    assert str(error.value).startswith("config.json: ")
