"""The models that diagnostics look at: theta0, branches, merged and joint, read from files when they are needed."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from merit_jax.core import sharding, tree
from merit_jax.core.leaves import LeafReader
from merit_jax.core.types import Leaves, Params
from merit_jax.pipeline.branch_parameters import trainable_leaves, trained_paths
from merit_jax.pipeline.diagnostics.task import NotPossible
from merit_jax.pipeline.merge_inputs import finished_branches, merged_leaves
from merit_jax.pipeline.merge_record import read_merge, source_of_branches
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.train_branches import branch_leaves
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.paths import MERGED, THETA0, Workdir, absolute

JOINT = "joint"


class Trained(NamedTuple):
    """The trained and merged models of a run.

    Attributes:
        branches: Name -> trained leaves of the branch.
        method: Merge operator.
        weights: w_k of the merge where it is the weighted mean `Σ_k w_k θ_k`; None where it is not.
        merged: The merged model.
        joint: Joint training from the same theta0, if there is any.
        homes: Name of a branch, or "joint" -> directory of its log.
        inputs: What all were made from, as JSON values.
    """

    branches: dict[str, LeafReader]
    method: str
    weights: list[float] | None
    merged: LeafReader
    joint: LeafReader | None
    homes: dict[str, Any]
    inputs: dict[str, Any]

    def compared(self) -> dict[str, LeafReader]:
        """Returns the merged model, and joint training if there is any."""
        return {MERGED: self.merged, **({JOINT: self.joint} if self.joint is not None else {})}


def trained(run: Run, *, branches: int = 1) -> Trained:
    """Opens the finished branches and their merge.

    Args:
        run: The run.
        branches: How many there must be.

    Raises:
        NotPossible: Something is not finished; the command that makes it is named.
        ValueError: It is there, but made from other inputs.
    """
    source = source_of_branches(run)
    if not source.workdir.partition.exists():
        raise NotPossible("the mixture is not partitioned: run merit run --stages=mixture,gradients,conflict,partition")
    count = len(load_partition(source).branches)
    if count < branches:
        raise NotPossible(f"{branches} branches are needed, and partition.groups = {count}: nothing to compare")
    unfinished = [str(k) for k in range(count) if not source.workdir.branch_done(k).exists()]
    if unfinished:
        raise NotPossible(
            f"branches {', '.join(unfinished)} of {count} are not finished: run merit run --stages=train,merge, or "
            f"merit branch --branch={unfinished[0]} on any machine"
        )
    made_from = [fingerprint(done["inputs"]) for done in finished_branches(source) if done is not None]
    if not run.workdir.merge_record.exists():
        raise NotPossible("the branches are not merged: run merit run --stages=merge")
    record = read_merge(run)
    if record["inputs"]["branches"] != made_from:
        raise ValueError(f"{run.workdir.merge_record} is a merge of other branches; run merit run --stages=merge again")
    joint = _joint(run)
    homes = {f"branch {k}": source.workdir.branch(k) for k in range(count)}
    inputs = {"branches": made_from, "merged": fingerprint(record["inputs"])}
    return Trained(
        {name: trainable_leaves(source, branch_leaves(source, k)) for k, name in enumerate(homes)},
        record["method"],
        record["weights"] if record["weighted_mean"] else None,
        merged_leaves(run.workdir),
        merged_leaves(joint) if joint else None,
        {**homes, **({JOINT: joint.branch(0)} if joint else {})},
        {**inputs, "joint": fingerprint(read_json(joint.merge_record)["inputs"]) if joint else None},
    )


def _joint(run: Run) -> Workdir | None:
    """Returns the workdir of joint training."""
    named = run.config.diagnostics.joint
    root = absolute(named) if named else run.workdir.baselines / "joint"
    found = Workdir(root, root)
    if not found.merge_record.exists():
        if named:
            raise ValueError(f"diagnostics.joint = {named!r}: {found.merge_record} is missing; give a finished run")
        return None
    if read_json(found.merge_record)["inputs"]["theta0"] != run.theta0_fingerprint:
        raise ValueError(f"{root} starts from another theta0; diagnostics compare models of one theta0")
    return found


class Models(Mapping[str, Params]):
    """Params by name, put on the devices on access and not kept; what is frozen is theta0's, and shared by all.

    Args:
        run: The run.
        readers: Name -> a model's leaves, the trained ones at least.
    """

    def __init__(self, run: Run, readers: Mapping[str, LeafReader]):
        self._run, self._readers = run, readers
        self._shardings = tree.flatten(run.shardings)
        self._trained = trained_paths(run)

    def __getitem__(self, name: str) -> Params:
        return tree.join(self.leaves(name), self.frozen)

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def leaves(self, name: str) -> Leaves:
        """Puts the trainable leaves of a model on the devices."""
        return self._place(self._readers[name], self._trained)

    @cached_property
    def frozen(self) -> Leaves:
        """theta0's other leaves."""
        fixed = [path for path in self._shardings if path not in set(self._trained)]
        return self._place(self._run.theta0.leaves(), fixed)

    def place(self, leaves: Leaves) -> Leaves:
        """Puts host arrays like some of the parameters on the devices, sharded as those."""
        return {path: sharding.place(leaf, self._shardings[path]) for path, leaf in leaves.items()}

    def _place(self, reader: LeafReader, paths: list[str]) -> Leaves:
        return {path: sharding.place(reader.read(path), self._shardings[path]) for path in paths}


def theta0(run: Run) -> Models:
    """Returns theta0 alone, as "theta0"."""
    return Models(run, {THETA0: run.theta0.leaves()})
