"""The inputs of a merge: the finished branches, or an earlier merge and the branches that came late."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from merit_jax.checkpoints.branch_checkpoint import read_sums
from merit_jax.checkpoints.readers import OrbaxLeaves, SomeLeaves
from merit_jax.core.leaves import LeafReader
from merit_jax.core.registry import lookup
from merit_jax.merging.exclude import merged_paths
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.train_branches import branch_leaves, finished_branch
from merit_jax.workdir.artifacts import read_inputs
from merit_jax.workdir.checksums import verify_checksums, verify_files
from merit_jax.workdir.paths import Workdir

Done = Mapping[str, Any]
"""The `done.json` of a branch."""

TOKENS = {"supervised": "tokens", "all": "all_tokens"}
"""Value of `merge.tokens` -> key of `done.json` with the N_k that it counts."""


class MergeInput(NamedTuple):
    """One of the models that are merged.

    Attributes:
        branch: Its number; None for a merge of several.
        leaves: Its trained parameters.
        holds: Numbers of the branches that it consists of; their tokens are its own.
    """

    branch: int | None
    leaves: LeafReader
    holds: tuple[int, ...]

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
    for index in range(len(load_partition(run).branches)):
        done = run.workdir.branch_done(index)
        if not done.exists() and not allow_missing:
            raise ValueError(
                f"branch {index} is not finished ({done} is missing); train it: merit branch --branch={index}, or merge the "
                "others with --allow_missing"
            )
        found.append(finished_branch(run, index) if done.exists() else None)
    if not any(found):
        raise ValueError(f"no branch of {run.workdir.root} is finished; there is nothing to merge")
    types = {index: done["inputs"]["dtype"] for index, done in enumerate(found) if done is not None}
    if len(set(types.values())) > 1:
        listed = ", ".join(f"branch {index} in {dtype}" for index, dtype in types.items())
        raise ValueError(
            f"the branches of {run.workdir.root} were trained in different types: {listed}; set model.dtype and train those of "
            "another type again: merit branch --overwrite"
        )
    return found


def branch_tokens(run: Run, finished: Sequence[Done | None], counted: str) -> list[int]:
    """Returns N_k of every branch, exact; 0 of one that is missing.

    Args:
        run: The run that trained them.
        finished: Every branch's `done.json`, or None.
        counted: The tokens that count, as `merge.tokens` names them.

    Raises:
        ValueError: A branch was trained before these tokens were counted, or the name is unknown.
    """
    key = lookup(TOKENS, counted, "merge.tokens")
    for index, done in enumerate(finished):
        if done is not None and key not in done:
            raise ValueError(
                f"{run.workdir.branch_done(index)} has no {key}: an earlier version trained the branch, which counted "
                "supervised tokens only; merge with merge.tokens=supervised, or delete its folder and train it again"
            )
    return [0 if done is None else done[key] for done in finished]


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
    """Returns every finished branch, after comparing its files with their checksums."""
    return [MergeInput(k, branch_leaves(run, k), (k,)) for k, done in enumerate(finished) if done is not None]


def without_excluded(parts: Sequence[MergeInput], exclude: Sequence[str]) -> list[MergeInput]:
    """Returns models without the parameters that stay theta0's.

    Args:
        parts: The models.
        exclude: Regular expressions over parameter paths.

    Raises:
        ValueError: One is found in no path, or nothing is left.
    """
    paths = merged_paths(parts[0].leaves.paths(), exclude, len(parts))
    return [part._replace(leaves=SomeLeaves(part.leaves, paths)) for part in parts] if exclude else list(parts)


def late_merge_inputs(
    run: Run, source: Run, finished: Sequence[Done | None], earlier: Mapping[str, Any]
) -> list[MergeInput]:
    """Returns the run's earlier merge, as one model of all its branches, and the branches that it lacks.

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
    return [MergeInput(None, merged, tuple(k for k, known in enumerate(have) if known)), *late]


def merged_leaves(workdir: Workdir) -> OrbaxLeaves:
    """Opens the merged parameters, after reading their files once for their checksums.

    Raises:
        ValueError: They are missing, or not as they were written.
    """
    mend = _mend(workdir)
    sums = read_sums(workdir.merged_sums, mend)
    if sums["inputs"] != read_inputs(workdir.merge_record):
        raise ValueError(f"{workdir.merged_sums} is of another merge than {workdir.merge_record}; {mend}")
    verify_checksums(workdir.merged_params, sums["files"], mend)
    return OrbaxLeaves(workdir.merged_params)


def velocity_leaves(workdir: Workdir) -> OrbaxLeaves:
    """Opens the velocity that the outer step after a merge has left, after reading its files once for their checksums.

    Raises:
        ValueError: It is missing, or not as it was written.
    """
    mend = _mend(workdir)
    verify_checksums(workdir.merged_velocity, read_sums(workdir.merged_sums, mend).get("velocity", {}), mend)
    return OrbaxLeaves(workdir.merged_velocity)


def check_merged_present(workdir: Workdir) -> None:
    """Checks that the files of the merged parameters are there; none is read but their checksums.

    Raises:
        ValueError: A file or the checksums are missing.
    """
    mend = _mend(workdir)
    verify_files(workdir.merged_params, read_sums(workdir.merged_sums, mend)["files"], mend)


def _mend(workdir: Workdir) -> str:
    return f"delete {workdir.merged} and merge again: merit run --stages=merge"


def with_missing(weights: Sequence[float] | None, finished: Sequence[Done | None]) -> list[float] | None:
    """Returns the weights of the merged branches with a 0 for each that is missing.

    Examples:
        >>> with_missing([0.75, 0.25], [{}, None, {}])
        [0.75, 0.0, 0.25]
    """
    if weights is None:
        return None
    given = iter(weights)
    return [0.0 if done is None else float(next(given)) for done in finished]
