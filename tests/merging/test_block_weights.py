"""Weights of blocks of layers: which layer has which, and that memory and checkpoints give one model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from merit_jax.checkpoints.readers import OrbaxLeaves, TreeLeaves
from merit_jax.core import tree
from merit_jax.merging import MERGERS, merge_streamed
from merit_jax.merging.block_weights import leaf_weights, weighted_mean

ROWS = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.25, 0.25, 0.5]])
LAYERS, BLOCK_OF = 5, (0, 0, 0, 1, 1)
"""Layers of the models below; the block of each, of two."""


SHAPES = {
    "embed/embedding": (7, 4),
    "layers/mlp/kernel": (LAYERS, 4, 6),
    "layers/norm/scale": (LAYERS, 4),
    "norm/scale": (4,),
}


def model(seed):
    rng = np.random.default_rng(seed)
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in SHAPES.items()} | {
        "steps": np.array([3, 4])
    }


def expected(branches, path):
    """The mean of a parameter, layer by layer, in float64."""
    stack = np.stack([branch[path].astype(np.float64) for branch in branches])
    if path.startswith("layers/"):
        return np.stack([np.tensordot(ROWS[block], stack[:, layer], 1) for layer, block in enumerate(BLOCK_OF)])
    return np.tensordot(ROWS[2], stack, 1)


@pytest.mark.parametrize("compiled", [False, True])
def test_each_layer_is_the_mean_by_the_weights_of_its_block(compiled):
    base, branches = model(0), [model(seed) for seed in (1, 2, 3)]
    merge = jax.jit(weighted_mean) if compiled else weighted_mean
    found = merge(base, branches, ROWS.astype(np.float32))
    assert found.keys() == base.keys()
    for path in SHAPES:
        np.testing.assert_allclose(found[path], expected(branches, path), atol=1e-6)
        assert found[path].dtype == np.float32
    np.testing.assert_array_equal(found["steps"], [3, 4])


def test_a_merge_to_a_checkpoint_has_the_same_weights(tmp_path):
    base, branches = model(0), [model(seed) for seed in (1, 2, 3)]
    readers = [TreeLeaves(tree.unflatten(leaves)) for leaves in (base, *branches)]
    merge_streamed(MERGERS["token_weighted"], readers[0], readers[1:], [0.3, 0.3, 0.4], tmp_path / "out", rows=ROWS)
    merged = OrbaxLeaves(tmp_path / "out")
    for path in SHAPES:
        assert merged.read(path).dtype == np.float32
        np.testing.assert_allclose(merged.read(path), expected(branches, path), atol=1e-6)


def test_one_row_is_for_all_parameters():
    base, branches = model(0), [model(seed) for seed in (1, 2, 3)]
    found = weighted_mean(base, branches, ROWS[:1])
    whole = MERGERS["token_weighted"](tree.unflatten(base), [tree.unflatten(leaves) for leaves in branches], ROWS[0])
    for path, leaf in tree.flatten(whole).items():
        np.testing.assert_allclose(found[path], leaf, atol=1e-6)


def test_theta0s_type_is_kept_and_the_sum_is_in_float32():
    models = [{path: jnp.asarray(model(seed)[path], jnp.bfloat16) for path in SHAPES} for seed in range(4)]
    found = weighted_mean(models[0], models[1:], ROWS)
    for path in SHAPES:
        mean = expected([{path: np.asarray(branch[path], np.float32)} for branch in models[1:]], path)
        assert found[path].dtype == jnp.bfloat16
        np.testing.assert_allclose(
            np.asarray(found[path], np.float64), mean, rtol=1.01 * 2**-8, atol=1e-6
        )  # rounded once


@pytest.mark.parametrize("blocks", [1, 2, 3, 5])
def test_blocks_are_consecutive_and_as_equal_as_can_be(blocks):
    rows = np.arange(blocks + 1)[:, None] * np.ones((1, 2))
    first, _ = leaf_weights(rows, "layers/norm/scale", (LAYERS, 4), 1)
    found = first.ravel().astype(int).tolist()
    assert first.shape == (LAYERS, 1)
    assert found == sorted(found)
    sizes = np.bincount(found)
    assert len(sizes) == blocks
    assert np.ptp(sizes) <= 1


def test_more_blocks_than_layers_are_refused():
    with pytest.raises(
        ValueError, match=r"layers/norm/scale stacks 5 layers, .* set merge\.search_blocks to 5 or less"
    ):
        leaf_weights(np.ones((7, 2)) / 2, "layers/norm/scale", (LAYERS, 4), 1)
