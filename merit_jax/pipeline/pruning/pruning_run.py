"""The pruning of a run's merged model as a run of its own, in the folder `pruned` of the workdir, with the merge as its start."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from merit_jax.checkpoints.readers import JoinedLeaves, TreeLeaves
from merit_jax.core import tree
from merit_jax.core.heads import ByHead, HasHeads
from merit_jax.core.leaves import LeafReader, LeafSpec
from merit_jax.core.types import Dataset
from merit_jax.pipeline.other_start import OtherStart
from merit_jax.pipeline.rounds import MergedStart, ask_for_joint
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.shared import Shared, Theta0
from merit_jax.pruning.gates_in_params import GatesInParams, gate_leaves, without_gates
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.paths import Workdir


def pruning_run(run: Run) -> Run:
    """Returns the run that prunes the merged model of another one, on the same data.

    Raises:
        ValueError: There is no merged model.
    """
    home = Workdir.at(run.workdir.pruned)
    return run.starting_from(MergedStart(run.theta0, run.workdir), run.datasets, run.config, home)


class GatedLeaves:
    """The parameters of a model in which some heads are closed: what they give is multiplied by 0.

    Args:
        leaves: Those of the whole model.
        model: Its functions.
        kept: Part -> 1 for the heads that stay, 0 for those that are closed.
    """

    def __init__(self, leaves: LeafReader, model: HasHeads, kept: ByHead) -> None:
        self._leaves, self._model, self._kept = leaves, model, kept

    def paths(self) -> Mapping[str, LeafSpec]:
        """Returns path name -> shape and dtype, sorted by name."""
        return self._leaves.paths()

    def read(self, path: str) -> np.ndarray:
        """Reads one leaf."""
        gated = self._model.with_gates(tree.unflatten({path: self._leaves.read(path)}), self._kept)
        return np.asarray(tree.flatten(gated)[path])


class PrunedStart(OtherStart):
    """A checkpoint with closed heads, as the start of its recovery: its parameters and its gates.

    Args:
        theta0: The whole checkpoint.
        model: Its functions.
        kept: Part -> 1 for the heads that stay.
    """

    def __init__(self, theta0: Theta0, model: HasHeads, kept: ByHead) -> None:
        super().__init__(theta0)
        gates = gate_leaves(kept)
        self.abstract = {**theta0.abstract, **jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), gates)}
        self.logical_axes = {**theta0.logical_axes, **jax.tree.map(lambda _: (None, None), gates)}
        self.source: Mapping[str, Any] = {"whole": dict(theta0.source), "kept": fingerprint(as_lists(kept))}
        self._leaves = JoinedLeaves(GatedLeaves(theta0.leaves(), model, kept), TreeLeaves(gates))

    def check_unchanged(self) -> None:
        """Raises ValueError if the whole checkpoint has been written since it was opened."""
        self._theta0.check_unchanged()

    def leaves(self) -> LeafReader:
        """Returns a reader of single leaves."""
        return self._leaves


def gated_run(run: Run, model: HasHeads, kept: ByHead, datasets: Sequence[Dataset], workdir: Workdir) -> Run:
    """Returns a run that trains one branch, from theta0 with closed heads, which stay closed.

    All such runs of one run share what is compiled: which heads are closed is a parameter that is not trained.

    Args:
        run: The run whose theta0 is pruned.
        model: Its model.
        kept: Part -> 1 for the heads that stay.
        datasets: What it is trained on.
        workdir: Its workdir.
    """
    start, config = PrunedStart(run.theta0, model, kept), copy.deepcopy(run.config)
    shared = run.shared.once(
        "gated", run.theta0, lambda: Shared(GatesInParams(model), start, run.tokenizer, run.reader)
    )
    with config.unlocked():
        ask_for_joint(config)
        config.partition.sites = ()
        config.merge.update({"branches": "", "match": "", "exclude": ()})
        config.train.adapter = ""
        config.train.trainable = tuple(map(without_gates, config.train.trainable))
        config.baselines = ()
    return Run(config, workdir, shared.starting_from(start, tuple(datasets)), run.overwrite)


def as_lists(kept: ByHead) -> dict[str, list[list[int]]]:
    """Returns, as JSON values, 1 for the heads that stay and 0 for the others."""
    return {part: np.asarray(values, int).tolist() for part, values in kept.items()}


def as_gates(lists: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, np.ndarray]:
    """Returns what `as_lists` was made of, as arrays."""
    return {part: np.asarray(values, np.float32) for part, values in lists.items()}
