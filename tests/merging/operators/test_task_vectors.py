"""What a parameter's name says of it: whether it is a linear map, and whether it stacks the tensors of layers."""

from pathlib import Path

import pytest

from merit_jax.core import tree
from merit_jax.merging.operators.task_vectors import named_kernel, named_stack
from merit_jax.models.pretrained.config_only import ConfigOnlyCheckpoint

ARCHITECTURES = sorted((Path(__file__).parents[3] / "configs" / "architectures").iterdir())


@pytest.mark.parametrize("folder", ARCHITECTURES, ids=lambda folder: folder.name)
def test_the_axes_that_are_stacked_are_those_that_the_models_call_layers_and_experts(folder):
    model = ConfigOnlyCheckpoint(folder).model
    axes, leaves = tree.flatten(model.logical_axes), tree.flatten(model.abstract)
    stacked = {path: sum(name in ("layers", "experts") for name in names) for path, names in axes.items()}
    assert {path: named_stack(path, leaf) for path, leaf in leaves.items()} == stacked
    assert {path.rpartition("/")[2] for path, count in stacked.items() if count} >= {"kernel", "scale"}
    for path, leaf in leaves.items():
        if named_kernel(path, leaf):
            assert len(leaf.shape) == 2 + stacked[path], path
