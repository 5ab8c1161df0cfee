"""The inputs of a merge: the finished branches, or an earlier merge and the branches that came late."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.checkpoints.readers import OrbaxLeaves, SomeLeaves
from merit_jax.core.types import LeafReader
from merit_jax.merging.operators.average import token_weights
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.train_branches import branch_inputs
from merit_jax.workdir.artifacts import is_current, read_json
from merit_jax.workdir.checksums import verify_checksums
from merit_jax.workdir.paths import Workdir

Done = Mapping[str, Any]
"""The `done.json` of a branch."""


class MergeInput(NamedTuple):
    """One of the models that are merged.

    Attributes:
        branch: Its number; None for a merge of several.
        leaves: Its trained parameters.
        tokens: Supervised tokens it was trained on.
    """

    branch: int | None
    leaves: LeafReader
    tokens: int

    @property
    def name(self) -> str:
        """The name of the model in messages."""
        return "the earlier merge" if self.branch is None else f"branch {self.branch}"


def finished_branches(run: Run, *, allow_missing: bool = False) -> list[Done | None]:
    """Reads the `done.json` of every branch and checks that it belongs to this run.

    Args:
        run: The run that trained them.
        allow_missing: Put None for a branch that is not finished, instead of refusing.

    Raises:
        ValueError: A branch is not finished, or none is, or one was made from other inputs.
    """
    found: list[Done | None] = []
    for index, branch in enumerate(load_partition(run).branches):
        done = run.workdir.branch_done(index)
        if done.exists():
            is_current(done, branch_inputs(run, branch), overwrite=False)
        elif not allow_missing:
            raise ValueError(
                f"branch {index} is not finished ({done} is missing); train it: launch.branch --branch={index}, or merge the "
                "others with --allow_missing"
            )
        found.append(read_json(done) if done.exists() else None)
    if not any(found):
        raise ValueError(f"no branch of {run.workdir.root} is finished; there is nothing to merge")
    return found


def lacks_branches(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Returns whether a merge lacks some branches and was otherwise made from the same.

    Args:
        old: Inputs that the merge records; "branches" has None for one that is missing.
        new: Inputs of the merge as it would be made now.

    Examples:
        >>> lacks_branches({"branches": ["a", None]}, {"branches": ["a", "b"]})
        True
        >>> lacks_branches({"branches": ["a", "b"]}, {"branches": ["a", "b"]})
        False
    """
    before, now = old.get("branches", ()), new["branches"]
    grown = before != now and len(before) == len(now) and all(a in (None, b) for a, b in zip(before, now, strict=True))
    return grown and {**old, "branches": now} == new


def merge_inputs(run: Run, finished: Sequence[Done | None]) -> list[MergeInput]:
    """Returns every finished branch."""
    return [
        MergeInput(k, OrbaxLeaves(params_directory(run.workdir.branch(k) / "checkpoints")), done["tokens"])
        for k, done in enumerate(finished)
        if done is not None
    ]


def late_merge_inputs(
    run: Run, source: Run, finished: Sequence[Done | None], earlier: Mapping[str, Any]
) -> list[MergeInput]:
    """Returns the run's earlier merge, as one model of all its tokens, and the branches that it lacks.

    With `θ̄` the mean over `N` tokens and a late branch of `n`, `θ̄ + n / (N + n) (θ − θ̄)` is the mean over all: the branches
    that were merged before are not read again.

    Args:
        run: The run with the merge.
        source: The run with the branches.
        finished: Every branch's `done.json`, or None.
        earlier: The merge's record.
    """
    have = [key is not None for key in earlier["inputs"]["branches"]]
    late = merge_inputs(source, [None if known else done for done, known in zip(finished, have, strict=True)])
    merged = SomeLeaves(merged_leaves(run.workdir), late[0].leaves.paths())
    return [MergeInput(None, merged, sum(earlier["tokens"])), *late]


def merged_leaves(workdir: Workdir) -> OrbaxLeaves:
    """Opens the merged parameters, after reading their files once for their checksums.

    Raises:
        ValueError: They are missing, or not as they were written.
    """
    if workdir.merged_sums.exists():
        verify_checksums(workdir.merged_params, read_json(workdir.merged_sums)["files"])
    return OrbaxLeaves(workdir.merged_params)


def spread_weights(tokens: Sequence[int]) -> list[float]:
    """Returns weights by tokens; that of a branch without any, which is missing, is 0.

    Args:
        tokens: Supervised tokens of each branch.
    """
    given = iter(token_weights([count for count in tokens if count]).tolist())
    return [next(given) if count else 0.0 for count in tokens]
