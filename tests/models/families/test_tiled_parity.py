"""LLaVA, Idefics3, SmolVLM and Gemma 3 against PyTorch transformers on tiny random models."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image

import tests.support.tiny as tiny
import tests.support.tiny_tiles as tiny_tiles
from merit_jax.models import export_hf, leaf_keys, load_pretrained
from merit_jax.models.io.weight_map import tensor_of
from merit_jax.models.modules.vit import TileRows, ViT, _buckets
from merit_jax.models.pretrained.processor import load_processor
from merit_jax.models.processing.tiled_images import patches

pytestmark = pytest.mark.parity

CASES = {
    "clip": {"kind": "clip"},
    "clip_qwen2": {"kind": "clip", "text": "qwen2"},
    "siglip": {"kind": "siglip"},
    "idefics3": {"kind": "idefics3"},
    "smolvlm": {"kind": "smolvlm"},
    "gemma3": {"kind": "gemma3"},
}
WIDTH, IMAGE_TOKENS = 96, 34


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    """Per case: folder saved by transformers, its model, ours, conversations with one image, two, none; the batch."""
    made = {}

    def make(case):
        if case not in made:
            made[case] = _make(tmp_path_factory.mktemp(case), **CASES[case])
        return made[case]

    return make


def _make(path, kind, **changes):
    torch = pytest.importorskip("torch")
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

    fields = tiny_tiles.hf_config(kind, **changes)
    torch.manual_seed(0)
    peer = (
        AutoModelForImageTextToText.from_config(CONFIG_MAPPING[fields["model_type"]].from_dict(fields)).float().eval()
    )
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.normal_(0.1, 0.2)
    peer.save_pretrained(path / "hf")
    tiny_tiles.helpers(path / "hf", kind)
    images = [
        tiny_tiles.picture(path / f"{n}.png", *size, seed=n) for n, size in enumerate([(30, 14), (10, 33), (40, 40)])
    ]
    conversations = [
        tiny_tiles.conversation(*images[:1]),
        tiny_tiles.conversation(*images[1:]),
        tiny_tiles.conversation(),
    ]
    model, params = load_pretrained(path / "hf")
    processor = load_processor(path / "hf", model.config)
    batch = tiny_tiles.batch(processor, conversations, WIDTH, IMAGE_TOKENS)
    return path / "hf", peer, tiny.compiled(model), params, processor, conversations, batch


def torch_inputs(path, kind, conversations):
    """What transformers' own processor makes of the conversations."""
    import transformers

    tokenizer, images = tiny_tiles.tokenizer(kind), transformers.AutoImageProcessor.from_pretrained(path, backend="pil")
    if kind in ("clip", "siglip"):
        extra = {"patch_size": tiny_tiles.PATCH, "num_additional_image_tokens": int(kind == "clip")}
        strategy = {"clip": "default", "siglip": "full"}[kind]
        peer = transformers.LlavaProcessor(images, tokenizer, vision_feature_select_strategy=strategy, **extra)
    elif kind == "gemma3":
        peer = transformers.Gemma3Processor(images, tokenizer, image_seq_length=4)
    else:
        peer = transformers.Idefics3Processor(images, tokenizer, image_seq_len=4)
    shown = [
        [{**m, "content": [_shown(part) for part in m["content"]]} for m in messages] for messages in conversations
    ]
    text = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in shown]
    opened = [[Image.open(p["path"]) for m in c for p in m["content"] if p["type"] == "image"] for c in conversations]
    given = [image for images in opened for image in images] if kind in ("clip", "siglip") else opened
    return peer(images=given, text=text, padding=True, return_tensors="pt")


def _shown(part):
    return {"type": "image"} if part["type"] == "image" else part


@pytest.mark.parametrize("case", CASES)
def test_processor_gives_the_tokens_and_pixels_of_transformers(peers, case):
    path, _, _, _, _, conversations, batch = peers(case)
    found = torch_inputs(path, CASES[case]["kind"], conversations)
    width = found["input_ids"].shape[1]
    np.testing.assert_array_equal(batch.tokens[:, :width], found["input_ids"].numpy())
    np.testing.assert_array_equal(batch.segments[:, :width], found["attention_mask"].numpy())
    assert not batch.segments[:, width:].any()
    used = batch.images.valid.reshape(3, batch.images.pixels.shape[1], -1).any(-1)
    assert used.sum(1).tolist() == ([3, 8, 0] if case in ("idefics3", "smolvlm") else [1, 2, 0])
    pixels = found["pixel_values"].numpy()
    if pixels.ndim == 5:  # per row, padded with empty tiles
        pixels = np.concatenate([row[:count] for row, count in zip(pixels, used.sum(1), strict=True)])
    grid, patch = tiny_tiles.SIDE // tiny_tiles.PATCH, tiny_tiles.PATCH
    whole = batch.images.pixels[used].reshape(-1, grid, grid, 3, patch, patch).transpose(0, 3, 1, 4, 2, 5)
    np.testing.assert_array_equal(whole.reshape(pixels.shape), pixels)


@pytest.mark.parametrize("case", CASES)
def test_image_features_equal_pytorch(peers, case):
    path, peer, model, params, _, conversations, batch = peers(case)
    inputs = torch_inputs(path, CASES[case]["kind"], conversations)
    expected = peer.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output
    expected = np.concatenate([part.detach().numpy() for part in expected])
    found = tiny_tiles.features(model, params, batch.images)[batch.images.valid]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_pytorch(peers, case):
    path, peer, model, params, _, conversations, batch = peers(case)
    inputs = torch_inputs(path, CASES[case]["kind"], conversations)
    expected = peer(**inputs).logits.detach().numpy()
    real = inputs["attention_mask"].numpy() > 0
    np.testing.assert_allclose(tiny.logits(model, params, batch)[:, : real.shape[1]][real], expected[real], atol=1e-4)


@pytest.mark.parametrize("case", ["clip", "siglip", "smolvlm", "gemma3"])
def test_gradients_equal_pytorch(peers, case):
    torch = pytest.importorskip("torch")
    path, peer, model, params, _, conversations, batch = peers(case)
    targets = np.where(batch.segments > 0, np.roll(batch.tokens, -1, axis=1), -100)
    targets[np.arange(3), batch.segments.sum(1) - 1] = -100

    def loss(p):
        scores = jax.nn.log_softmax(model.unembed(p, model.hidden(p, batch)))
        picked = jnp.take_along_axis(scores, jnp.maximum(targets, 0)[..., None], -1)[..., 0]
        return -jnp.where(targets >= 0, picked, 0).sum() / (targets >= 0).sum()

    inputs = torch_inputs(path, CASES[case]["kind"], conversations)
    width = inputs["input_ids"].shape[1]
    peer.zero_grad()
    expected = torch.nn.functional.cross_entropy(
        peer(**inputs).logits.flatten(0, 1), torch.from_numpy(targets[:, :width]).long().flatten()
    )
    expected.backward()
    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    grads = flatten_dict(grads, sep="/")
    peer_grads = {
        _saved(name, model.config.family in ("llava", "gemma3")): parameter.grad
        for name, parameter in peer.named_parameters()
    }
    for leaf, places in leaf_keys(model, path).items():
        for place in places:
            grad, peer_grad = np.asarray(tensor_of(np.asarray(grads[leaf]), place)), peer_grads[place.key]
            if peer_grad is None:
                assert not grad.any(), f"{place.key}: PyTorch does not use it"
                continue
            size = max(np.linalg.norm(peer_grad), 1e-3)  # a key bias has gradient 0 but for rounding
            error = np.linalg.norm(grad - peer_grad.numpy()) / size
            assert error < 1e-3, f"{place.key}: relative error {error}"


@pytest.mark.parametrize("case", CASES)
def test_exports_load_in_transformers_without_missing_or_unexpected_keys(peers, tmp_path, case):
    from transformers import AutoModelForImageTextToText

    path, peer, _, params, _, conversations, _ = peers(case)
    leaves = flatten_dict(params, sep="/")
    export_hf(tmp_path / "out", leaves.__getitem__, path)
    again, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    inputs = torch_inputs(tmp_path / "out", CASES[case]["kind"], conversations)
    np.testing.assert_array_equal(again.eval()(**inputs).logits.detach(), peer(**inputs).logits.detach())


def test_tower_reads_partly_filled_tiles_as_pytorch(peers):
    torch = pytest.importorskip("torch")
    _, peer, model, params, _, _, _ = peers("idefics3")
    grid, patch, rng = tiny_tiles.SIDE // tiny_tiles.PATCH, tiny_tiles.PATCH, np.random.default_rng(0)
    mask = np.zeros((3, grid, grid), bool)
    mask[0], mask[1, :3, :2], mask[2, :1] = True, True, True
    pixels = rng.normal(size=(3, 3, tiny_tiles.SIDE, tiny_tiles.SIDE)).astype(np.float32)
    none = np.zeros((1, 0), np.int32)
    rows = TileRows(patches(pixels, patch)[None], mask[None], none, none > 0)
    found = ViT(model.config.vision).apply({"params": params["vision"]}, rows)[0]
    expected = peer.model.vision_model(torch.from_numpy(pixels), patch_attention_mask=torch.from_numpy(mask))
    shown = mask.reshape(3, -1)
    np.testing.assert_allclose(found[shown], expected.last_hidden_state.detach().numpy()[shown], atol=1e-4)


@pytest.mark.parametrize("grid", [7, 14, 26, 27, 32])
def test_positions_of_partly_filled_tiles_are_those_of_pytorch(grid):
    torch = pytest.importorskip("torch")
    edges, count = torch.arange(1 / grid, 1.0, 1 / grid), torch.arange(1, grid + 1)
    fractions = torch.clamp(torch.arange(grid).float() * (1.0 / count)[:, None], max=1.0 - 1e-6)
    np.testing.assert_array_equal(_buckets(grid)[1:], torch.bucketize(fractions, edges, right=True))


def _saved(name, llava):
    """The name under which `save_pretrained` writes a parameter."""
    if llava:
        name = name.removeprefix("model.").replace("lm_head", "language_model.lm_head")
        name = re.sub("^language_model.(?!lm_head)", "language_model.model.", name)
    return name
