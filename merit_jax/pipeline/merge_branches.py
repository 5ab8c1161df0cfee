"""`merged/`: the branches averaged once (MERIT Alg. 1, step 5), and the result in the format of theta0."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from merit_jax.checkpoints import compatibility
from merit_jax.checkpoints.branch_checkpoint import check_branch
from merit_jax.checkpoints.readers import OrbaxLeaves, distance
from merit_jax.core.progress import bar
from merit_jax.core.registry import lookup
from merit_jax.merging import MERGERS, token_weights
from merit_jax.merging.mergekit_config import recipe
from merit_jax.merging.merger import Merger
from merit_jax.merging.options import declared_options, resolve_options
from merit_jax.merging.streaming import merge_streamed
from merit_jax.pipeline.estimate_fisher import estimate_fisher, fisher_leaves
from merit_jax.pipeline.merge_inputs import (
    Done,
    earlier_merge,
    finished_branches,
    late_merge_inputs,
    merge_inputs,
    spread_weights,
)
from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifacts import is_current, read_json, write_json, write_text
from merit_jax.workdir.checksums import file_checksums, fingerprint
from merit_jax.workdir.lease import held
from merit_jax.workdir.paths import Workdir

FOR_MERGEKIT = """For mergekit, run in the workdir that holds the branches. It reads Hugging Face folders: write each branch with
python -m launch.export --branch=K --out=branches/K/hf; "theta0", where it is named, is the folder of model.path."""
"""Head of a run's mergekit.yaml."""


def merge_branches(run: Run) -> bool:
    """Merges the finished branches leaf by leaf, in the memory of a few leaves.

    For an operator that asks for it, the Fisher information of every branch is estimated first and kept beside the branch.
    With `run.allow_missing`, branches that are not finished are left out and the weights of the others renormalised; merged
    again when more are finished, the late ones are added: to the average itself where the operator is the average by tokens,
    or else by merging all again.

    Raises:
        ValueError: A branch is missing, unfinished, or was made from another theta0, data or configuration.
        UnfinishedError: Another process is merging.
    """
    source, record = source_of_branches(run), run.workdir.merge_record
    merger = lookup(MERGERS, run.config.merge.method, "merge.method")
    finished = finished_branches(source, allow_missing=run.allow_missing)
    inputs = _inputs(run, merger, finished)
    begun = run.workdir.merged_next / record.name
    if not begun.exists() and _is_made(run, inputs):
        return False
    with held(run.workdir.merge_lease, "the merge"):
        if begun.exists():
            run.on_first_process(lambda: _take_place(run))
        if _is_made(run, inputs):
            return False
        _merge(run, source, merger, finished, inputs, None if run.overwrite else earlier_merge(record, inputs))
    return True


def _is_made(run: Run, inputs: Mapping[str, Any]) -> bool:
    """Whether the merge is there; one that lacks branches of these is not it.

    Raises:
        ValueError: One from other inputs is there.
    """
    record = run.workdir.merge_record
    if not run.overwrite and earlier_merge(record, inputs) is not None:
        return False
    return is_current(record, inputs, overwrite=run.overwrite)


def _merge(
    run: Run,
    source: Run,
    merger: Merger,
    finished: Sequence[Done | None],
    inputs: Mapping[str, Any],
    earlier: Mapping[str, Any] | None,
) -> None:
    adds = earlier is not None and inputs["method"] == "token_weighted"
    parts = late_merge_inputs(run, source, finished, earlier) if adds else merge_inputs(source, finished)
    theta0 = run.theta0.leaves()
    for part in parts:
        compatibility.same_leaves(theta0.paths(), part.leaves.paths(), part.name)
        if part.branch is not None:
            check_branch(source.workdir.branch(part.branch) / "checkpoints", inputs["branches"][part.branch])
    distances = list(earlier["displacement"]["branches"]) if adds else [0.0] * len(finished)
    for part in parts:
        if part.branch is not None:
            distances[part.branch] = distance(part.leaves, theta0)
    present = [distances[k] for k, done in enumerate(finished) if done is not None]
    options = resolve_options(merger.leaf, _matched(run, inputs["options"], present))
    fishers = _fishers(source, [part.branch for part in parts]) if merger.fisher else []
    tokens = [0 if done is None else done["tokens"] for done in finished]
    result = {
        "inputs": inputs,
        "method": inputs["method"],
        "options": options,
        "tokens": tokens,
        "weights": spread_weights(tokens),
        "displacement": {"branches": distances},
    }
    home = run.workdir.merged_next if adds else run.workdir.merged

    def write() -> None:
        if home.exists():
            home.rmtree()
        out, weights = home / run.workdir.merged_params.name, token_weights([part.tokens for part in parts])
        with bar(len(theta0.paths()), "merge", "parameter") as progress:
            readers = [part.leaves for part in parts]
            merge_streamed(merger, theta0, readers, weights, out, lambda _: progress.update(), fishers, **options)
        result["displacement"]["merged"] = distance(OrbaxLeaves(out), theta0)
        if (text := _for_mergekit(run, result["weights"], options)) is not None:
            write_text(home / "mergekit.yaml", text)
        write_json(home / run.workdir.merged_sums.name, {"inputs": inputs, "files": file_checksums(out)})
        write_json(home / run.workdir.merge_record.name, result)
        if adds:
            _take_place(run)

    run.on_first_process(write)


def _take_place(run: Run) -> None:
    """Puts a merge with late branches, which is whole, in the place of the one without them."""
    if run.workdir.merged.exists():
        run.workdir.merged.rmtree()
    run.workdir.merged_next.rename(run.workdir.merged)


def _inputs(run: Run, merger: Merger, finished: Sequence[Done | None]) -> dict[str, Any]:
    """All that decides what comes out."""
    return {
        "theta0": run.theta0_fingerprint,
        "method": run.config.merge.method,
        "options": _options(run),
        "branches": [None if done is None else fingerprint(done["inputs"]) for done in finished],
        **({"fisher": {"examples": run.config.gradients.examples}} if merger.fisher else {}),
    }


def _fishers(run: Run, branches: Sequence[int]) -> list[OrbaxLeaves]:
    """The Fisher information of branches, estimated where it is missing."""
    for k in branches:
        estimate_fisher(run, k)
    return [fisher_leaves(run, k) for k in branches]


def _for_mergekit(run: Run, weights: Sequence[float], options: Mapping[str, Any]) -> str | None:
    """The same merge for mergekit, once the branches have been exported; None where it has no such method."""
    there = {f"branches/{k}/hf": weight for k, weight in enumerate(weights) if weight}
    method = run.config.merge.method
    return recipe(method, options, "theta0", list(there), list(there.values()), stacked=True, comment=FOR_MERGEKIT)


def source_of_branches(run: Run) -> Run:
    """The run whose branches are merged: this one, unless `merge.branches` names another's workdir."""
    other = run.config.merge.branches
    return run.derive(run.config, Workdir.at(other)) if other else run


def given_options(cfg: Any) -> dict[str, Any]:
    """The operator's options as the section `merge` of a config gives them.

    Raises:
        ValueError: `merge.options` is no JSON object.
    """
    try:
        options = json.loads(cfg.options)
    except json.JSONDecodeError as error:
        raise ValueError(f"merge.options = {cfg.options!r} is not JSON ({error}); write an object, as '{{}}'") from None
    if not isinstance(options, dict):
        raise ValueError(f"merge.options = {cfg.options!r}; expected a JSON object, as '{{}}'")
    return options


def _options(run: Run) -> dict[str, Any]:
    """The operator's options, and whose distance from theta0 decides its scale."""
    cfg = run.config.merge
    options = given_options(cfg)
    if "seed" in declared_options(lookup(MERGERS, cfg.method, "merge.method").leaf):
        options.setdefault("seed", run.config.seed)
    if cfg.match:
        record = read_json(Workdir.at(cfg.match).merge_record)
        options["match"] = {"displacement": record["displacement"]["merged"], "inputs": fingerprint(record["inputs"])}
    return options


def _matched(run: Run, options: dict[str, Any], distances: Sequence[float]) -> dict[str, Any]:
    """The options, with the scale that moves theta0 as far towards the branch as the matched model is."""
    options = dict(options)
    if (match := options.pop("match", None)) is None:
        return options
    if len(distances) != 1:
        raise ValueError(f"merge.match moves theta0 towards one branch; there are {len(distances)}")
    return {**options, "scale": match["displacement"] / distances[0]}
