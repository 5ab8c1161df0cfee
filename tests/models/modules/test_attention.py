"""Attention: every implementation gives softmax(scale q·k) v over the keys that are seen, with its derivatives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from merit_jax.models.modules import chunked_attention
from merit_jax.models.modules.attention import attend
from merit_jax.models.modules.visible import EVERYWHERE, image_blocks, in_cache, in_groups, in_segments

TOKENS, HEADS, KV_HEADS, DIM, SCALE = 70, 6, 2, 8, 0.3
RNG = np.random.default_rng(0)
SEGMENTS = np.stack([np.repeat([1, 2, 0], [30, 25, 15]), np.repeat([1, 2], [10, 60])]).astype(np.int32)
"""Rows of packed examples, one with padding."""
IMAGES = image_blocks(np.where(np.arange(TOKENS) // 6 % 3 == 1, 9, 1)[None].repeat(2, 0), SEGMENTS, 9)

KINDS = {
    "packed": in_segments(SEGMENTS),
    "window": dataclasses.replace(in_segments(SEGMENTS), window=jnp.int32(7)),
    "images": dataclasses.replace(in_segments(SEGMENTS, IMAGES), window=jnp.int32(9)),
    "groups": in_groups(SEGMENTS),
    "everywhere": EVERYWHERE,
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(chunked_attention, "BLOCK", 16)


def operands(tokens=TOKENS, dtype="float32"):
    return tuple(jnp.asarray(RNG.normal(size=(2, tokens, n, DIM)), dtype) for n in (HEADS, KV_HEADS, KV_HEADS))


def shown(kind):
    """Which keys a query sees, [b, t, s], by the definition of each kind."""
    same = SEGMENTS[:, :, None] == SEGMENTS[:, None]
    distance = np.arange(TOKENS)[:, None] - np.arange(TOKENS)
    blocks = np.asarray(IMAGES)
    of_image = (blocks[:, :, None] == blocks[:, None]) & (blocks > 0)[:, :, None]
    return {
        "packed": same & (distance >= 0),
        "window": same & (distance >= 0) & (distance < 7),
        "images": same & ((distance >= 0) | of_image) & (distance < 9),
        "groups": same,
        "everywhere": np.ones_like(same),
    }[kind]


def by_definition(query, key, value, mask):
    """In float64."""
    key, value = (np.repeat(np.asarray(x, np.float64), HEADS // KV_HEADS, axis=2) for x in (key, value))
    scores = np.where(mask[:, None], SCALE * np.einsum("bqhd,bkhd->bhqk", np.asarray(query, np.float64), key), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), value)


def by(implementation, visible):
    return lambda *operands: attend(*operands, visible, scale=SCALE, implementation=implementation).vectors


@pytest.mark.parametrize("implementation", ["xla", "chunked"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_implementation_computes_the_definition(kind, implementation):
    arrays = operands()
    found = jax.jit(by(implementation, KINDS[kind]))(*arrays)
    np.testing.assert_allclose(found, by_definition(*arrays, shown(kind)), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_have_the_gradients_of_all_pairs(kind):
    arrays = operands()

    def derivatives(implementation):
        return jax.jit(jax.value_and_grad(lambda x: (by(implementation, KINDS[kind])(*x) ** 3).sum()))(arrays)

    found, expected = derivatives("chunked"), derivatives("xla")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5), found, expected)


def test_chunks_of_bfloat16_are_as_exact_as_all_pairs_of_it():
    arrays, visible = operands(dtype="bfloat16"), KINDS["packed"]
    exact = jax.grad(lambda x: (by("xla", visible)(*x) ** 2).sum())(tuple(x.astype(jnp.float32) for x in arrays))
    error = {}
    for one in ("xla", "chunked"):
        found = jax.grad(lambda x, one=one: (by(one, visible)(*x).astype(jnp.float32) ** 2).sum())(arrays)
        assert all(x.dtype == jnp.bfloat16 for x in found)
        error[one] = [float(jnp.linalg.norm(a.astype(jnp.float32) - b)) for a, b in zip(found, exact, strict=True)]
    assert np.all(np.array(error["chunked"]) < 1.5 * np.array(error["xla"]))


def test_tokens_of_a_cache_see_the_slots_up_to_their_own():
    query, key, value = operands()
    slots = np.array([[3, 8], [69, 70]], np.int32)
    mask = np.arange(TOKENS) <= slots[:, :, None]
    for one in ("xla", "chunked"):
        found = by(one, in_cache(slots, TOKENS))(query[:, :2], key, value)
        np.testing.assert_allclose(found, by_definition(query[:, :2], key, value, mask), atol=1e-5)


def test_a_query_that_sees_nothing_gets_zero_and_finite_gradients():
    groups = np.zeros((2, TOKENS), np.int32)
    groups[1] = 1
    visible = in_groups(np.ones((2, TOKENS), np.int32), groups)
    found, gradient = jax.value_and_grad(lambda x: (by("chunked", visible)(*x) ** 2)[0].sum())(operands())
    assert found == 0
    assert all(not np.asarray(x).any() for x in gradient)


def test_memory_grows_with_the_length_of_a_row(monkeypatch):
    monkeypatch.setattr(chunked_attention, "BLOCK", 256)

    def loss(arrays, segments):
        def layer(carry, _):
            query, key, value = carry
            return (query + by("auto", in_segments(segments))(*carry), key, value), None

        return (jax.lax.scan(layer, arrays, length=2)[0][0] ** 2).sum()

    def temporaries(tokens):
        shapes = tuple(jax.ShapeDtypeStruct((1, tokens, n, DIM), jnp.float32) for n in (HEADS, KV_HEADS, KV_HEADS))
        segments = jax.ShapeDtypeStruct((1, tokens), jnp.int32)
        return jax.jit(jax.grad(loss)).lower(shapes, segments).compile().memory_analysis().temp_size_in_bytes

    short, middle, long = (temporaries(tokens) for tokens in (2048, 8192, 32768))
    assert 0.8 < (long - middle) / (middle - short) / 4 < 1.2
