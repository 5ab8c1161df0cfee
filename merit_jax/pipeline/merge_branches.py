"""`merged/`: the branches averaged once (MERIT Alg. 1, step 5)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from merit_jax.checkpoints import compatibility
from merit_jax.checkpoints.folded_leaves import FoldedLeaves
from merit_jax.checkpoints.readers import OrbaxLeaves, distance
from merit_jax.core.leaves import LeafReader
from merit_jax.core.progress import bar
from merit_jax.merging import MERGERS, merge_streamed, token_weights
from merit_jax.merging.mergekit_config import recipe
from merit_jax.merging.merger import Merger, UsedWeights, Weights
from merit_jax.merging.options import resolve_options
from merit_jax.merging.outer_step import OuterStep, step_streamed
from merit_jax.pipeline.branch_statistics import branch_statistics
from merit_jax.pipeline.merge_inputs import (
    TOKENS,
    Done,
    MergeInput,
    branch_tokens,
    check_merged_present,
    finished_branches,
    lacks_branches,
    late_merge_inputs,
    merge_inputs,
    with_missing,
    without_excluded,
)
from merit_jax.pipeline.merge_options import match_displacement, merge_options
from merit_jax.pipeline.merge_record import merge_settings, source_of_branches
from merit_jax.pipeline.outer import outer_step, velocity_before
from merit_jax.pipeline.rounds import in_rounds
from merit_jax.pipeline.rounds_record import rounds_record
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.search_settings import searches
from merit_jax.pipeline.search_weights import SearchedWeights, searched_weights
from merit_jax.pipeline.stage import ExtendableStage
from merit_jax.workdir.artifact_types import Fill, ReplaceableFolder
from merit_jax.workdir.artifacts import write_json, write_text
from merit_jax.workdir.checksums import file_checksums, fingerprint
from merit_jax.workdir.lease import Lease, held

FOR_MERGEKIT = """For mergekit, run in the workdir that holds the branches. It reads Hugging Face folders: write each branch with
merit export --branch=K --out=branches/K/hf; "theta0", where it is named, is the folder of model.path."""
"""Head of a run's mergekit.yaml."""


def _inputs(run: Run) -> dict[str, Any]:
    settings = merge_settings(run)
    finished = finished_branches(source_of_branches(run), allow_missing=run.allow_missing)
    return {**settings, "branches": [None if done is None else fingerprint(done["inputs"]) for done in finished]}


def _merge(run: Run, inputs: Mapping[str, Any], earlier: Mapping[str, Any] | None, lease: Lease) -> Fill:
    """Merges the finished branches leaf by leaf, in the memory of a few leaves.

    For an operator that asks for one, a statistic of every branch, as Fisher information, is estimated first and kept with the
    branch. With `run.allow_missing`, unfinished branches are left out and the weights of the others renormalised; merged again
    when more are finished, the late ones are added: to the average itself where the operator is the average by tokens, or else
    by merging all again.

    Args:
        run: The run.
        inputs: Of the merge: a branch that finishes after they were taken is not merged.
        earlier: The record of a merge that lacks some of the branches, or None.
        lease: Held by this process.
    """
    source, merger = source_of_branches(run), MERGERS[run.config.merge.method]
    finished = _named(inputs, finished_branches(source, allow_missing=run.allow_missing))
    searched, outer = searched_weights(run) if searches(run) else None, outer_step(run)
    if searched or run.config.merge.method != "token_weighted" or not outer.averages:
        earlier = None  # only an average by tokens can be added to
    parts = late_merge_inputs(run, source, finished, earlier) if earlier else merge_inputs(source, finished)
    _check(run, parts)
    distances = _distances(run, parts, earlier["displacement"]["branches"] if earlier else [0.0] * len(finished))
    parts = without_excluded(parts, run.config.merge.exclude)
    present = [distances[k] for k, done in enumerate(finished) if done is not None]
    options = resolve_options(merger.leaf, match_displacement(merge_options(run), present))
    statistics = branch_statistics(source, merger.statistic, [part.branch for part in parts])
    counted = run.config.merge.tokens if merger.weighted(options) else "supervised"
    tokens = {name: branch_tokens(source, finished, name) for name in dict.fromkeys(("supervised", counted))}
    by_tokens = token_weights([n for n, done in zip(tokens[counted], finished, strict=True) if done])
    rows = searched.rows if searched else by_tokens[None]
    used = merger.used_weights(rows[0], options) if len(rows) == 1 else UsedWeights(None, mean=False)
    result = {
        "method": run.config.merge.method,
        "options": options,
        **{TOKENS[name]: counts for name, counts in tokens.items()},
        "weights": with_missing(used.values, finished),
        "weighted_mean": used.mean and outer.averages and not run.config.merge.exclude,
        **({"search": _search_record(run, searched, finished)} if searched else {}),
        "displacement": {"branches": distances},
        **({"rounds": rounds_record(run, *_bytes(parts))} if in_rounds(run.config) else {}),
    }

    def fill(folder: epath.Path) -> dict[str, Any]:
        out = folder / run.workdir.merged_params.name
        weights = rows[0] if searched else token_weights([sum(tokens[counted][k] for k in p.holds) for p in parts])
        blocks, average = rows if len(rows) > 1 else None, out if outer.averages else folder / "average"
        _write(merger, source.theta0.leaves(), parts, weights, average, statistics, blocks, options)
        if not outer.averages:
            _step(outer, source, average, parts[0].leaves, folder)
        result["displacement"]["merged"] = distance(OrbaxLeaves(out), run.theta0.leaves())
        source.theta0.check_unchanged()
        run.theta0.check_unchanged()
        if blocks is None and (text := _for_mergekit(run, used.values, finished, options)) is not None:
            write_text(folder / "mergekit.yaml", text)
        write_json(folder / run.workdir.merged_sums.name, {"inputs": inputs, **_sums(out)})
        lease.check()
        return result

    return fill


merge_branches = ExtendableStage(
    _inputs,
    _merge,
    lambda run: ReplaceableFolder(run.workdir.merge_record, run.workdir.merged_next),
    name="merge",
    guard=lambda run: held(run.workdir.merge_lease, "the merge"),
    check=lambda run: check_merged_present(run.workdir),
    extends=lacks_branches,
)
"""Merges the finished branches; late ones are added to a merge that lacks them."""


def _write(
    merger: Merger,
    start: LeafReader,
    parts: Sequence[MergeInput],
    weights: Weights,
    out: epath.Path,
    statistics: Sequence[LeafReader],
    blocks: np.ndarray | None,
    options: Mapping[str, Any],
) -> None:
    """Merges parts, leaf by leaf, into a checkpoint."""
    readers = [part.leaves for part in parts]
    with bar(len(start.paths()), "merge", "parameter") as progress:
        merge_streamed(merger, start, readers, weights, out, lambda _: progress.update(), statistics, blocks, **options)


def _named(inputs: Mapping[str, Any], finished: Sequence[Done | None]) -> list[Done | None]:
    """Returns the finished branches that a merge's inputs name, None for the others."""
    return [done if key else None for key, done in zip(inputs["branches"], finished, strict=True)]


def _search_record(run: Run, searched: SearchedWeights, finished: Sequence[Done | None]) -> dict[str, Any]:
    """Returns how the weights were found, as JSON values."""
    return {
        "evaluations": run.config.merge.search_evaluations,
        "scored_on": "suites" if run.config.evaluate.suites else "mixture",
        "evaluation": searched.place,
        "score": searched.score,
        "token_weights_score": searched.start,
        "rows": [with_missing(row, finished) for row in searched.rows.tolist()],
    }


def _check(run: Run, parts: Sequence[MergeInput]) -> None:
    """Checks that every model has theta0's parameters.

    Raises:
        ValueError: One does not.
    """
    paths = run.theta0.leaves().paths()
    for part in parts:
        compatibility.same_leaves(paths, part.leaves.paths(), part.name)


def _step(outer: OuterStep, source: Run, average: epath.Path, trained: LeafReader, folder: epath.Path) -> None:
    """Writes what the outer step makes of the average, which is removed."""
    out, velocity = folder / source.workdir.merged_params.name, folder / source.workdir.merged_velocity.name
    start, merged = source.theta0.leaves(), OrbaxLeaves(average)
    step_streamed(outer, start, merged, trained, velocity_before(source), out, velocity)
    average.rmtree()


def _sums(params: epath.Path) -> dict[str, Any]:
    """Returns the checksums of the merged parameters, and of the velocity where there is one."""
    velocity = params.parent / "velocity"
    return {
        "files": file_checksums(params),
        **({"velocity": file_checksums(velocity)} if velocity.exists() else {}),
    }


def _bytes(parts: Sequence[MergeInput]) -> tuple[int, int]:
    """Returns the sizes of what a branch has trained and of what the merge has changed: of adapters, a sum of all updates."""
    leaves = parts[0].leaves
    if not isinstance(leaves, FoldedLeaves):
        return (_size(leaves),) * 2
    own = _size(leaves.updates)
    return own, min(own * len(parts), _size(leaves))


def _size(leaves: LeafReader) -> int:
    return sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in leaves.paths().values())


def _distances(run: Run, parts: Sequence[MergeInput], known: Sequence[float]) -> list[float]:
    """Returns the distance of every branch from theta0; only those of `parts` are measured."""
    measured = {part.branch: distance(part.leaves, run.theta0.leaves()) for part in parts if part.branch is not None}
    return [measured.get(k, length) for k, length in enumerate(known)]


def _for_mergekit(
    run: Run, weights: Sequence[float] | None, finished: Sequence[Done | None], options: Mapping[str, Any]
) -> str | None:
    """Returns the configuration of the same merge for mergekit; None where it has none, as in rounds or with exclusions."""
    if in_rounds(run.config) or not outer_step(run).averages or run.config.merge.exclude:
        return None
    folders = [f"branches/{k}/hf" for k, done in enumerate(finished) if done is not None]
    return recipe(run.config.merge.method, options, "theta0", folders, weights, comment=FOR_MERGEKIT)
