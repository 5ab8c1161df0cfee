"""Leaves that lie in files are merged in blocks: the same to the bit as whole, and what is not finite is named."""

import ml_dtypes
import numpy as np
import pytest

from merit_jax.merging import MERGERS
from merit_jax.merging.blocks import BLOCK
from merit_jax.models.io.safetensors import TensorSpec

WEIGHTS = [0.5, 0.2, 0.3]
OPTIONS = {"task_arithmetic": {"scale": 0.7}}
ELEMENTWISE = [name for name, merger in MERGERS.items() if merger.elementwise]
SHAPES = {"scalar": (), "empty": (0, 3), "block": (BLOCK,), "more": (3, BLOCK // 2 + 1)}


class Held:
    """Leaves in memory, read as float32; `lies` says whether they count as lying in files."""

    def __init__(self, leaves, lies):
        self.leaves, self.lies, self.whole = leaves, lies, []

    def paths(self):
        return {path: TensorSpec(path, np.dtype(np.float32), leaf.shape) for path, leaf in self.leaves.items()}

    def read(self, path):
        self.whole.append(path)
        return self.leaves[path].astype(np.float32)

    def view(self, path):
        return self.leaves[path] if self.lies else None


def readers(dtype, lies=True, damage=lambda leaves: None):
    rng = np.random.default_rng(0)
    leaves = [{name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()} for _ in range(4)]
    damage(leaves)
    return [Held(held, lies) for held in leaves]


def prepared(name, held):
    weights = WEIGHTS if name != "interpolate" else [1.0]
    options = OPTIONS.get(name, {"scale": 0.25} if name == "interpolate" else {})
    branches = held[1 : 1 + len(weights)]
    sources = lambda path, k: f"file {k}"  # noqa: E731
    return MERGERS[name].prepare(held[0], branches, weights, options, sources=sources), branches


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_blocks_give_the_same_bits_as_the_whole(name, dtype):
    (lying, branches), (whole, _) = (prepared(name, readers(dtype, lies)) for lies in (True, False))
    for path in SHAPES:
        found, expected = lying.value(path), whole.value(path)
        assert found.dtype == expected.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    assert not any(branch.whole for branch in branches)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("k", range(4))
@pytest.mark.parametrize("name", sorted(set(ELEMENTWISE) - {"interpolate"}))
def test_a_last_entry_that_is_not_finite_is_named_by_its_file(name, k, value):
    def damage(leaves):
        leaves[k]["more"][-1, -1] = value

    merge, _ = prepared(name, readers(np.float32, damage=damage))
    with pytest.raises(ValueError, match=rf"more: file {k - 1 if k else None} holds values that are not finite"):
        merge.value("more")


def test_a_branch_without_weight_that_is_not_finite_is_refused_too():
    held = readers(np.float32, damage=lambda leaves: leaves[2]["block"].__setitem__(7, np.inf))
    merge = MERGERS["token_weighted"].prepare(held[0], held[1:], [0.5, 0.0, 0.5], {})
    with pytest.raises(ValueError, match="block: branch 1 holds values that are not finite"):
        merge.value("block")


def test_a_sum_that_overflows_is_refused_with_its_size():
    held = readers(np.float32, damage=lambda leaves: [leaf["block"].fill(3e38) for leaf in leaves[1:]])
    merge = MERGERS["task_arithmetic"].prepare(held[0], held[1:], WEIGHTS, {"scale": 1.0})
    with pytest.raises(ValueError, match="block: merged values do not fit float32; merge with a smaller scale"):
        merge.value("block")


def test_only_operators_that_are_linear_are_computed_by_entry():
    assert {name for name, merger in MERGERS.items() if merger.linear is not None} == set(ELEMENTWISE)
