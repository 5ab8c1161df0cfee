"""Compressors of stacked datasets, and several together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from merit_jax.gradients.compression import make_compressor
from merit_jax.gradients.compressor import Concatenated, leaf_shardings
from merit_jax.gradients.count_sketch import CountSketch
from merit_jax.gradients.estimate import _reducer, _stacked
from merit_jax.gradients.stride import Stride
from tests.support.sharded_leaves import HOST, collectives, cut


@pytest.mark.parametrize("mesh", [(1, 4, 2), (1, 8, 1)])
def test_the_means_of_a_stack_of_datasets_move_no_more(mesh):
    layout = leaf_shardings(cut(mesh))
    sums = {path: jax.device_put(np.stack([leaf, leaf]), _stacked(layout[path])) for path, leaf in HOST.items()}
    for compressor, expected in ((Stride(5), []), (CountSketch(64), [("all-reduce", 128)])):
        finish = _reducer(compressor, tuple(layout.items()))
        assert collectives(finish.lower(sums, jnp.full(2, 2.0)).compile().as_text()) == expected
        second = {path: part[1] for path, part in finish(sums, jnp.array([1.0, 2.0])).items()}
        np.testing.assert_allclose(compressor.row(second, layout), compressor(HOST) / 2, rtol=1e-5, atol=1e-5)


def test_several_are_taken_one_after_the_other():
    leaves, parts = cut((1, 4, 2)), (Stride(5), CountSketch(32), Stride(1))
    row = Concatenated(parts)(leaves)
    np.testing.assert_allclose(row, np.concatenate([part(leaves) for part in parts]), rtol=1e-5, atol=1e-6)
    assert Concatenated(parts).size(leaf_shardings(leaves)) == len(row)
    assert Concatenated(parts).definition.count(";") == 2


@pytest.mark.parametrize(("name", "key"), [("stride", "gradients.stride"), ("countsketch", "gradients.width")])
@pytest.mark.parametrize("value", [0, -1])
def test_a_setting_below_one_is_refused_with_its_key(name, key, value):
    with pytest.raises(ValueError, match=f"{key} = {value}; expected 1 or more"):
        make_compressor(name, stride=value, width=value)


def test_the_setting_of_the_other_compressor_does_not_matter():
    assert make_compressor("stride", stride=2, width=0) == Stride(2)
    assert make_compressor("countsketch", stride=0, width=8) == CountSketch(8)
