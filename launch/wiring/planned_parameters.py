"""The parameters of a training step, without weights: theta0's, or with the updates of `train.adapter` beside them."""

import re
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from merit_jax.core import tree
from merit_jax.models.adapters.attach import Adapter
from merit_jax.models.interface import Model


class PlannedParameters(NamedTuple):
    """The parameters of a step, and those of them that it differentiates.

    Attributes:
        abstract: Tree of shapes and types.
        logical_axes: Tree of logical axis names.
        trainable: Regular expressions over the paths of the leaves that learn.
        added: Numbers in leaves that theta0 has not.
    """

    abstract: Any
    logical_axes: Any
    trainable: tuple[str, ...]
    added: int = 0


def attached(model: Model, train: ConfigDict) -> Adapter | None:
    """Returns the updates that the section `train` asks for; None where it asks for none."""
    if not train.adapter:
        return None
    patterns = (tuple(train.adapter_targets), tuple(train.trainable))
    return model.adapted(train.adapter, train.adapter_rank, train.adapter_alpha, *patterns)


def planned_parameters(model: Model, adapter: Adapter | None, trainable: tuple[str, ...]) -> PlannedParameters:
    """Returns the parameters of a step of a model, or of its updates."""
    if adapter is None:
        return PlannedParameters(model.abstract, model.logical_axes, trainable)
    shapes, axes = tree.flatten(model.abstract), tree.flatten(model.logical_axes)
    return PlannedParameters(
        tree.unflatten({**shapes, **adapter.four_bits, **adapter.abstract}),
        tree.unflatten({**axes, **adapter.logical_axes}),
        tuple(f"^{re.escape(path)}$" for path in adapter.abstract),
        sum(leaf.size for leaf in adapter.abstract.values()),
    )
