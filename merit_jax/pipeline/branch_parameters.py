"""The parameters of branches: where their training starts, what it changes of theta0, and in which space gradients are taken."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from merit_jax.checkpoints.folded_leaves import FoldedLeaves
from merit_jax.checkpoints.readers import OverlayLeaves, SomeLeaves
from merit_jax.core import sharding, tree
from merit_jax.core.adapters import Adapter
from merit_jax.core.leaves import LeafReader
from merit_jax.core.seeds import fold
from merit_jax.core.types import Leaves, LossFn, Params
from merit_jax.pipeline.run import Run

ADAPTER_SPACE = "adapter"
SPACES = ("full", ADAPTER_SPACE)
"""Values of `gradients.space`."""


def trained_paths(run: Run) -> list[str]:
    """Returns the leaves of theta0 that `train.trainable` names; with adapters, branches change some of their kernels."""
    return tree.matching(tree.flatten(run.theta0.abstract), run.config.train.trainable)


def branch_start(run: Run) -> tuple[Leaves, Leaves]:
    """Returns the leaves that a branch trains, as they are at theta0, and those that it does not change."""
    adapter = run.adapter
    if adapter is None:
        return tree.split(run.params, run.config.train.trainable)
    return _start(run, adapter), _frozen(run, adapter)


def _start(run: Run, adapter: Adapter) -> Leaves:
    axes, shapes = tree.unflatten(adapter.logical_axes), tree.unflatten(adapter.abstract)
    places = tree.flatten(sharding.of_params(run.mesh, axes, shapes))
    leaves = adapter.start(fold(run.config.seed, "adapter"), run.theta0.leaves().read)
    return {path: sharding.place(leaf, places[path]) for path, leaf in leaves.items()}


def _frozen(run: Run, adapter: Adapter) -> Leaves:
    """Returns theta0, with some kernels in four bits where the adapter asks for it; then no other copy is kept on the devices."""
    if not adapter.four_bits:
        return tree.flatten(run.params)

    def make() -> Leaves:
        run.shared.forget("params")
        theta0, places = run.theta0.leaves(), tree.flatten(run.shardings)
        frozen = {path: adapter.stored(path, sharding.place(theta0.read(path), places[path])) for path in places}
        run.theta0.check_unchanged()
        return frozen

    return run.shared.once("frozen", (run.mesh, run.theta0, adapter), make, kept=1)


def changed_leaves(run: Run, trained: LeafReader) -> LeafReader:
    """Returns the leaves of theta0 that a branch has changed, as it has changed them: with adapters, kernels and updates summed.

    Args:
        run: The run that trained it.
        trained: The leaves of its checkpoint.
    """
    adapter = run.adapter
    return trained if adapter is None else FoldedLeaves(run.theta0.leaves(), trained, adapter)


def trainable_leaves(run: Run, changed: LeafReader) -> LeafReader:
    """Returns all leaves that `train.trainable` names, theta0's where a branch has not changed them."""
    if run.adapter is None:
        return changed
    return SomeLeaves(OverlayLeaves(run.theta0.leaves(), changed), trained_paths(run))


class GradientSpace(NamedTuple):
    """The parameters that the datasets' gradients are taken of.

    Attributes:
        loss_fn: The loss.
        params: theta0, with the leaves of adapters where gradients are taken of those.
        trainable: Regular expressions over the paths of the leaves that count.
    """

    loss_fn: LossFn
    params: Params
    trainable: Sequence[str]


def gradient_space(run: Run) -> GradientSpace:
    """Returns what gradients are taken of: the trainable parameters of theta0, or the leaves of adapters at theta0."""
    if run.config.gradients.space != ADAPTER_SPACE:
        return GradientSpace(run.loss_fn, run.params, run.config.train.trainable)
    leaves, frozen = branch_start(run)
    return GradientSpace(run.branch_loss_fn, tree.join(leaves, frozen), [f"^{re.escape(path)}$" for path in leaves])


def gradient_space_inputs(run: Run) -> dict[str, Any]:
    """Returns what decides the space of the gradients besides theta0, as JSON values."""
    cfg = run.config.train
    inputs: dict[str, Any] = {"trainable": list(cfg.trainable)}
    if run.config.gradients.space == ADAPTER_SPACE:
        keys = ("adapter", "adapter_rank", "adapter_alpha", "adapter_targets")
        inputs["adapter"] = {key: list(cfg[key]) if key == "adapter_targets" else cfg[key] for key in keys}
    return inputs
