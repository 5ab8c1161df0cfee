"""Qwen2.5-VL and Qwen3-VL against PyTorch transformers on tiny random models, with one, two and no images in one batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors import safe_open

import tests.support.tiny as tiny
import tests.support.tiny_qwen3_vl as qwen3
import tests.support.tiny_qwen_vl as qwen
from merit_jax.models import export_hf, leaf_keys, load_pretrained, open_pretrained
from merit_jax.models.io.weight_map import tensor_of
from merit_jax.models.pretrained.processor import load_processor
from merit_jax.models.processing.image_loading import open_image
from tests.support.head_entropies import mean_entropies
from tests.support.tiny_tiles import batch, conversation, features, picture

pytestmark = pytest.mark.parity
WIDTH, ROOM = 64, 44
TINY = {"qwen2_5_vl": qwen, "qwen3_vl": qwen3}
PREFIXES = {"visual.": "model.visual.", "model.": "model.language_model."}
"""Beginnings of names in published Qwen2.5-VL checkpoints -> those of transformers in memory; Qwen3-VL's are the same."""


@pytest.fixture(scope="module", params=TINY)
def world(request, tmp_path_factory):
    """(folder, PyTorch model, model, params, batch, PyTorch's inputs)."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForImageTextToText

    path = tmp_path_factory.mktemp("qwen")
    torch.manual_seed(0)
    peer = AutoModelForImageTextToText.from_config(hf_config(request.param)).float().eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.normal_(0.1, 0.2)
    peer.save_pretrained(path)
    model, params = load_pretrained(qwen.helpers(path))
    processor = load_processor(path, model.config)
    pictures = [picture(path / f"{n}.png", *size, seed=n) for n, size in enumerate([(25, 43), (17, 60), (130, 70)])]
    rows = batch(processor, [conversation(pictures[2]), conversation(*pictures[:2]), conversation()], WIDTH, ROOM)
    return path, peer, tiny.compiled(model), params, rows, inputs(path, rows, [pictures[2], *pictures[:2]])


def hf_config(family):
    """The tiny model's config in transformers."""
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[family].from_dict(TINY[family].hf_config())


def inputs(path, rows, images):
    """What PyTorch takes: the processor's own pixels and grids."""
    torch = pytest.importorskip("torch")
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(path, backend="pil")
    found = processor(images=[open_image(image) for image in images], return_tensors="np")
    return {
        "input_ids": torch.from_numpy(rows.tokens).long(),
        "attention_mask": torch.from_numpy(rows.segments).long(),
        "mm_token_type_ids": torch.from_numpy(rows.tokens == qwen.hf_config()["image_token_id"]).int(),
        "pixel_values": torch.from_numpy(found["pixel_values"]),
        "image_grid_thw": torch.from_numpy(found["image_grid_thw"]),
    }


def test_pixels_are_the_processors_once_window_order_is_undone(world):
    *_, rows, peer_inputs = world
    images, merge = rows.images, 2
    found = []
    for row in range(len(rows.tokens)):
        order = np.argsort(images.slots[row][images.valid[row] > 0])
        found.append(images.patches[row].reshape(ROOM, merge * merge, -1)[: len(order)][order])
    expected = peer_inputs["pixel_values"].numpy()
    np.testing.assert_array_equal(np.concatenate(found).reshape(expected.shape), expected)
    assert [len(part) for part in found] == [8 * 4, 3 * 5 + 2 * 8, 0]


def test_positions_equal_get_rope_index(world):
    _, peer, _, _, rows, peer_inputs = world
    fields = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    expected, delta = peer.model.get_rope_index(**{name: peer_inputs[name] for name in fields})
    np.testing.assert_array_equal(np.moveaxis(rows.images.positions, -1, 0), expected.numpy())
    assert (delta.numpy() < 0).any()


def test_vision_features_equal_pytorch(world):
    _, peer, model, params, rows, peer_inputs = world
    expected = peer.model.get_image_features(peer_inputs["pixel_values"], peer_inputs["image_grid_thw"]).pooler_output
    found = features(model, params, rows.images)
    ours = [found[row][np.argsort(rows.images.slots[row][rows.images.valid[row] > 0])] for row in range(3)]
    expected = np.concatenate([part.detach().numpy() for part in expected])
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(np.concatenate(ours), expected, atol=1e-4)


def test_logits_equal_pytorch(world):
    _, peer, model, params, rows, peer_inputs = world
    expected = peer(**peer_inputs).logits.detach().numpy()
    real = rows.segments > 0
    np.testing.assert_allclose(tiny.logits(model, params, rows)[real], expected[real], atol=1e-4)


def test_entropies_are_those_of_the_probabilities_of_pytorch(world):
    _, peer, model, params, rows, peer_inputs = world
    peer.set_attn_implementation("eager")
    seen = [layer.detach().numpy() for layer in peer(**peer_inputs, output_attentions=True).attentions]
    _, found = model.head_entropies(params, rows)
    np.testing.assert_allclose(found["decoder"].mean, mean_entropies(seen, rows.segments), atol=1e-5)
    images = np.asarray(found["vision"].queries) > 0
    assert images[:, :2].all()
    assert not images[:, 2].any()


def test_loss_gradients_equal_pytorch_in_every_part(world):
    torch = pytest.importorskip("torch")
    path, peer, model, params, rows, peer_inputs = world
    targets = np.where(rows.segments > 0, np.roll(rows.tokens, -1, axis=1), -100)
    targets[np.arange(3), rows.segments.sum(axis=1) - 1] = -100

    def loss(p):
        scores = jax.nn.log_softmax(model.unembed(p, model.hidden(p, rows)))
        picked = jnp.take_along_axis(scores, jnp.maximum(targets, 0)[..., None], -1)[..., 0]
        return -jnp.where(targets >= 0, picked, 0).sum() / (targets >= 0).sum()

    scores = peer(**peer_inputs).logits
    expected = torch.nn.functional.cross_entropy(scores.flatten(0, 1), torch.from_numpy(targets).long().flatten())
    peer.zero_grad()
    expected.backward()
    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    leaves = flatten_dict(grads, sep="/")
    peers = dict(peer.named_parameters())
    for leaf, places in leaf_keys(model, path).items():
        for place in places:
            prefix = next((p for p in PREFIXES if place.key.startswith(p)), "")
            name = place.key if place.key in peers else PREFIXES[prefix] + place.key.removeprefix(prefix)
            peer_grad = peers[name].grad.numpy()
            error = np.linalg.norm(tensor_of(np.asarray(leaves[leaf]), place) - peer_grad) / np.linalg.norm(peer_grad)
            assert error < 1e-3, f"{place.key}: relative error {error}"


@pytest.mark.parametrize("tied", [False, True])
def test_an_export_loads_in_transformers_whole_and_gives_the_same_logits(world, tmp_path, tied):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForImageTextToText

    base, _, model, params, rows, peer_inputs = world
    if tied:
        base = TINY[model.config.family].folder(tmp_path / "base", tie_word_embeddings=True)
        model, params = load_pretrained(base)
    changed = jax.tree.map(lambda leaf: leaf * 0.9, params)
    export_hf(tmp_path / "out", flatten_dict(changed, sep="/").__getitem__, base)
    peer, report = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "out", output_loading_info=True, dtype=torch.float32
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected = peer.eval()(**peer_inputs).logits.detach().numpy()
    real = rows.segments > 0
    np.testing.assert_allclose(tiny.logits(model, changed, rows)[real], expected[real], atol=1e-4)


def test_a_folder_goes_round_bit_equal(world, tmp_path):
    base = world[0]
    opened = open_pretrained(base)
    export_hf(tmp_path / "out", opened.read, opened)
    with safe_open(base / "model.safetensors", "np") as one, safe_open(tmp_path / "out/model.safetensors", "np") as two:
        assert sorted(one.keys()) == sorted(two.keys())
        for key in one.keys():  # noqa: SIM118 - a file, no dictionary
            assert one.get_tensor(key).tobytes() == two.get_tensor(key).tobytes()
