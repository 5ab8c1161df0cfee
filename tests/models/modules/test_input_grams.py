"""The Gram matrices of kernels' inputs: of every layer, tower and projector, over what is no padding."""

import jax
import numpy as np
import pytest

from merit_jax.core import tree
from merit_jax.core.types import RecordsInputs
from merit_jax.models import load_pretrained
from merit_jax.models.pretrained.processor import load_processor
from tests.support import tiny, tiny_tiles


def gram(x: np.ndarray) -> np.ndarray:
    wide = np.float64(x).reshape(-1, x.shape[-1])
    return wide.T @ wide


@pytest.fixture(scope="module")
def text():
    """A model of three layers, its parameters, and rows of 7 and 4 tokens."""
    model = tiny.model(scan_unroll=2)
    return model, tiny.params(model), tiny.rows(7, 4, width=9)


def test_there_is_one_for_every_kernel_by_its_path(text):
    model, params, rows = text
    assert isinstance(model, RecordsInputs)
    grams, counts = model.input_grams(params, rows)
    kernels = {path: leaf for path, leaf in tree.flatten(model.abstract).items() if path.endswith("kernel")}
    shapes = {path: (*leaf.shape[:-2], leaf.shape[-2], leaf.shape[-2]) for path, leaf in kernels.items()}
    assert {path: leaf.shape for path, leaf in grams.items()} == shapes
    assert {path: leaf.shape for path, leaf in counts.items()} == {
        path: leaf.shape[:-2] for path, leaf in kernels.items()
    }
    assert all((np.asarray(count) == 11).all() for count in counts.values())


def test_each_layers_is_that_of_the_inputs_which_a_shorter_model_gives(text):
    """A model of the first layers, whose final norm is the next layer's, ends in that layer's inputs."""
    model, params, rows = text
    grams, _ = model.input_grams(params, rows)
    real = np.asarray(rows.segments) > 0
    flat = tree.flatten(params)
    for layer in (1, 2):
        first = {path: leaf[:layer] if path.startswith("layers/") else leaf for path, leaf in flat.items()}
        first["final_norm/scale"] = flat["layers/attention_norm/scale"][layer]
        inputs = np.asarray(tiny.model(layers=layer).hidden(tree.unflatten(first), rows))[real]
        for name in ("query", "key", "value"):
            found = grams[f"layers/attention/{name}/kernel"][layer]
            np.testing.assert_allclose(found, gram(inputs), rtol=1e-4, atol=1e-4)
    last = np.asarray(model.hidden(params, rows))[real]
    np.testing.assert_allclose(grams["unembed/kernel"], gram(last), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changes", [{"remat": "dots"}, {"remat": "full", "scan_unroll": 3}, {"dtype": "bfloat16"}])
def test_how_the_model_is_computed_makes_no_difference(text, changes):
    model, params, rows = text
    expected, _ = model.input_grams(params, rows)
    found, _ = tiny.model(**changes).input_grams(params, rows)
    for path, leaf in expected.items():
        scale = float(np.abs(leaf).max())
        np.testing.assert_allclose(found[path], leaf, atol=(0.05 if "dtype" in changes else 1e-5) * scale, err_msg=path)


def test_padding_counts_for_nothing(text):
    model, params, rows = text
    wide = jax.tree.map(lambda leaf: np.pad(leaf, [(0, 1), (0, 5)]), rows)
    for found, expected in zip(model.input_grams(params, wide), model.input_grams(params, rows), strict=True):
        for path, leaf in expected.items():
            np.testing.assert_allclose(found[path], leaf, rtol=1e-4, atol=1e-4, err_msg=path)


def opened(path, kind):
    """A vision-language model, its parameters and its processor."""
    folder = tiny_tiles.folder(path / kind, kind)
    model, params = load_pretrained(folder)
    return tiny.compiled(model), params, load_processor(folder, model.config)


@pytest.mark.parametrize("kind", tiny_tiles.KINDS)
def test_towers_and_projectors_count_patches_and_features_of_images_alone(tmp_path, kind):
    model, params, processor = opened(tmp_path, kind)
    pictures = [tiny_tiles.picture(tmp_path / f"{n}.png", *size, seed=n) for n, size in enumerate([(16, 16), (12, 20)])]
    talks = [tiny_tiles.conversation(pictures[0]), tiny_tiles.conversation(pictures[1])]
    together, alone = (tiny_tiles.batch(processor, group, 80, 64) for group in (talks, talks[:1]))
    grams, counts = model.input_grams(params, together)
    kernels = {path: leaf for path, leaf in tree.flatten(model.abstract).items() if path.endswith("kernel")}
    assert grams.keys() == kernels.keys()
    one, ones = model.input_grams(params, alone)
    other, others = model.input_grams(params, tiny_tiles.batch(processor, talks[1:], 80, 64))
    for path, leaf in grams.items():
        np.testing.assert_allclose(leaf, one[path] + other[path], rtol=1e-3, atol=1e-3, err_msg=path)
        np.testing.assert_array_equal(counts[path], ones[path] + others[path])
    features = int(np.asarray(together.images.valid).sum())
    projector = next(path for path in grams if path.startswith("projector/"))
    assert float(counts[projector]) == features
    tiles = np.asarray(together.images.pixels)
    shown = tiles[np.asarray(together.images.valid).reshape(*tiles.shape[:2], -1).any(axis=-1)]
    if kind in ("clip", "siglip"):
        np.testing.assert_allclose(grams["vision/patch/kernel"], gram(shown), rtol=1e-3)
    text = model.input_grams(params, together._replace(images=None, tokens=np.ones_like(together.tokens)))[0]
    assert {path for path in grams if path.startswith("decoder/")} == text.keys()


def test_layers_of_a_tower_that_are_not_run_have_none(tmp_path):
    model, params, processor = opened(tmp_path, "clip")
    picture = tiny_tiles.picture(tmp_path / "picture.png", 16, 16)
    grams, counts = model.input_grams(params, tiny_tiles.batch(processor, [tiny_tiles.conversation(picture)], 80, 64))
    depth, layers = model.config.vision.depth, model.config.vision.layers
    assert depth < layers
    assert (np.asarray(counts["vision/blocks/up/kernel"]) > 0).tolist() == [True] * depth + [False] * (layers - depth)
    assert not np.asarray(grams["vision/blocks/up/kernel"])[depth:].any()
