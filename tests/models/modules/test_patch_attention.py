"""Attention among patches: blocks give what one mask over all pairs gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from merit_jax.models.modules import attention, chunked_attention, patch_attention
from tests.support.head_entropies import entropies_of

MOST, PATCHES = 8, 150


def ids():
    """Two rows of images of windows of different sizes, in order, with padding at the end: (segments, windows)."""
    rng = np.random.default_rng(0)
    segments, windows = np.zeros((2, PATCHES), np.int32), np.zeros((2, PATCHES), np.int32)
    for row, images in enumerate([3, 2]):
        place = window = 0
        for image in range(1, images + 1):
            for size in rng.integers(1, MOST + 1, 8):
                window += 1
                here = slice(place, place + size)
                segments[row, here], windows[row, here] = image, window
                place += size
        assert place < PATCHES
    return segments, windows


def by_definition(query, key, value, groups):
    """softmax(q k / sqrt(dim)) v within groups, in float64."""
    scores = np.einsum("bqhd,bkhd->bhqk", query, key, dtype=np.float64) / np.sqrt(query.shape[-1])
    scores = np.where((groups[:, :, None] == groups[:, None, :])[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("dense", [True, False])
def test_patches_see_their_image_or_their_window(monkeypatch, full, dense):
    monkeypatch.setitem(attention.LONGEST, "auto", PATCHES if dense else 16)
    monkeypatch.setattr(chunked_attention, "BLOCK", 20)
    segments, windows = ids()
    query, key, value = np.random.default_rng(1).normal(size=(3, 2, PATCHES, 2, 4)).astype(np.float32)

    def attend(*arrays):
        return patch_attention.attend(*arrays, segments, windows, jnp.asarray(full), MOST).vectors

    expected = by_definition(query, key, value, segments if full else windows)
    found, real = np.asarray(jax.jit(attend)(query, key, value)), segments > 0
    np.testing.assert_allclose(found[real], expected[real], atol=1e-5)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("full", [True, False])
def test_entropies_of_blocks_are_those_of_all_probabilities(monkeypatch, full):
    monkeypatch.setitem(attention.LONGEST, "auto", 16)
    segments, windows = ids()
    query, key, value = np.random.default_rng(1).normal(size=(3, 2, PATCHES, 2, 4)).astype(np.float32)
    groups = segments if full else windows
    scores = np.einsum("bqhd,bkhd->bhqk", query, key, dtype=np.float64) / 2
    weights = np.exp(np.where((groups[:, :, None] == groups[:, None, :])[:, None], scores, -np.inf))
    weights = weights / weights.sum(-1, keepdims=True)
    operands = (*map(jnp.asarray, (query, key, value)), segments, windows, jnp.asarray(full))
    seen, entropies = patch_attention.attend(*operands, MOST, entropies=True)
    real = segments > 0
    expected, counted = entropies_of(weights)
    np.testing.assert_array_equal(np.asarray(entropies.counted)[real], counted[real])
    np.testing.assert_allclose(np.asarray(entropies.values)[real], expected[real], atol=1e-5)
    np.testing.assert_allclose(np.asarray(seen)[real], by_definition(query, key, value, groups)[real], atol=1e-5)


def test_gradients_of_blocks_equal_those_of_one_mask(monkeypatch):
    monkeypatch.setattr(chunked_attention, "BLOCK", 20)
    segments, windows = ids()
    arrays = np.random.default_rng(1).normal(size=(3, 2, PATCHES, 2, 4)).astype(np.float32)

    @jax.jit
    def gradient(arrays, full):
        def loss(x):
            seen = patch_attention.attend(*x, segments, windows, full, MOST).vectors
            return (seen[segments > 0] ** 3).sum()

        return jax.grad(loss)(arrays)

    for full in (True, False):
        expected = gradient(arrays, full)
        with monkeypatch.context() as patch:
            patch.setitem(attention.LONGEST, "auto", 16)
            jax.clear_caches()
            np.testing.assert_allclose(gradient(arrays, full), expected, atol=1e-4)
        jax.clear_caches()


@pytest.mark.parametrize("full", [True, False])
def test_many_patches_never_meet_in_one_array(full):
    patches, heads = 8192, 4
    shape = jax.ShapeDtypeStruct((1, patches, heads, 16), jnp.float32)
    numbers = jax.ShapeDtypeStruct((1, patches), jnp.int32)

    def attend(query, segments, windows):
        return patch_attention.attend(query, query, query, segments, windows, jnp.asarray(full), 64).vectors

    gradient = jax.grad(lambda *x: attend(*x).sum())
    memory = jax.jit(gradient).lower(shape, numbers, numbers).compile().memory_analysis()
    assert memory.temp_size_in_bytes < heads * patches * patches * 4 / 4
