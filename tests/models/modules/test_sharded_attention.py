"""Attention over the devices of a mesh, and by the TPU's kernel, interpreted: the numbers of one device and of all pairs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from merit_jax.core.sharding import Placement, make_mesh
from merit_jax.models.modules import splash_attention
from merit_jax.models.modules.attention import attend
from merit_jax.models.modules.visible import in_groups, in_segments

ROWS, TOKENS, HEADS, KV_HEADS, DIM = 2, 512, 4, 2, 8
SEGMENTS = np.stack([np.repeat([1, 2, 0], [200, 250, 62]), np.repeat([1, 2], [10, 502])]).astype(np.int32)
FULL = np.iinfo(np.int32).max


def layer(window):
    """A layer of a model whose layers have windows of 150 tokens or none."""
    return dataclasses.replace(in_segments(SEGMENTS), window=jnp.int32(window), windows=(FULL, 150))


KINDS = {"packed": in_segments(SEGMENTS), "window": layer(150), "no window": layer(FULL), "groups": in_groups(SEGMENTS)}


def cut(visible, tokens):
    """The description of the first tokens."""
    return jax.tree.map(lambda x: x[:, :tokens] if x.ndim else x, visible)


def derivatives(visible, tokens=TOKENS, **options):
    """Loss and gradients of attention on real tokens."""
    rng = np.random.default_rng(0)
    arrays = tuple(
        jnp.asarray(rng.normal(size=(ROWS, tokens, n, DIM)), jnp.float32) for n in (HEADS, KV_HEADS, KV_HEADS)
    )
    real = jnp.asarray(SEGMENTS[:, :tokens] > 0)[..., None, None]

    def loss(arrays, visible):
        return jnp.where(real, attend(*arrays, visible, scale=0.3, **options).vectors, 0).astype(jnp.float32) ** 3

    return jax.jit(jax.value_and_grad(lambda *x: loss(*x).sum()))(arrays, visible)


def assert_equal(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5), found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel_for_tpus_computes_attention(monkeypatch, kind):
    monkeypatch.setattr(splash_attention, "INTERPRET", True)
    visible = cut(KINDS[kind], 300)
    assert "pallas_call" in str(jax.make_jaxpr(lambda: derivatives(visible, 300, implementation="splash"))())
    assert_equal(derivatives(visible, 300, implementation="splash"), derivatives(visible, 300, implementation="xla"))


MESHES = {
    "rows and heads": (2, 1, 2, 2),
    "tokens": (1, 1, 1, 4),
    "tokens, and heads that it does not divide": (1, 1, 4, 2),
}


@pytest.mark.parametrize("implementation", ["chunked", "splash"])
@pytest.mark.parametrize("mesh", MESHES)
def test_devices_that_share_rows_heads_and_tokens_compute_what_one_does(monkeypatch, mesh, implementation):
    monkeypatch.setattr(splash_attention, "INTERPRET", True)
    sizes = MESHES[mesh]
    placement = Placement(lambda: make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))]))
    visible = KINDS["window"]
    found = derivatives(visible, implementation=implementation, placement=placement)
    assert_equal(found, derivatives(visible, implementation="xla"))


def test_caches_and_images_that_see_themselves_whole_are_not_for_the_kernel():
    blocks = jnp.zeros((ROWS, TOKENS), jnp.int32)
    for visible in (in_segments(SEGMENTS, blocks), dataclasses.replace(KINDS["packed"], whole=False)):
        assert_equal(derivatives(visible, implementation="splash"), derivatives(visible, implementation="xla"))


@pytest.mark.parametrize("window", [None, 1, 5, 8, 13])
def test_two_numbers_stand_for_a_block_of_the_order(window):
    places = np.arange(64)
    distance = places[:, None] - places
    seen = (distance >= 0) & (distance < (window or 64))
    mask = splash_attention.OrderMask((64, 64), (window and window - 1, 0), offset=0)
    for row in range(0, 64, 8):
        for column in range(0, 64, 8):
            block = (slice(row, row + 8), slice(column, column + 8))
            assert (mask[block].any(), mask[block].all()) == (seen[block].any(), seen[block].all())
