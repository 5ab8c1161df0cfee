"""`merged/`: the branches averaged once (MERIT Alg. 1, step 5), and the result in the format of theta0."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from merit_jax.artifact import fingerprint, is_current, read_json, write_json, write_text
from merit_jax.card import merged_card
from merit_jax.merge import MERGERS, checks, token_weights
from merit_jax.merge.leaves import OrbaxLeaves, distance
from merit_jax.merge.mergekit import recipe
from merit_jax.merge.options import settle, takes
from merit_jax.merge.stream import merge_streamed
from merit_jax.progress import bar
from merit_jax.registry import lookup
from merit_jax.run import Run
from merit_jax.stages.fisher import estimate_fisher, fisher_leaves
from merit_jax.stages.partition import load_plan
from merit_jax.stages.train import branch_inputs
from merit_jax.train.checkpoint import params_directory
from merit_jax.workdir import Workdir

FOR_MERGEKIT = """For mergekit, run in the workdir that holds the branches. It reads Hugging Face folders: write each branch with
python -m launch.export --branch=K --out=branches/K/hf; "theta0", where it is named, is the folder of model.path."""
"""Head of a run's mergekit.yaml."""


def merge(run: Run) -> bool:
    """Merges the finished branches leaf by leaf, in the memory of a few leaves.

    For an operator that asks for it, the Fisher information of every branch is estimated first and kept beside the branch.

    Raises:
        ValueError: A branch is missing, unfinished, or was made from another theta0, data or configuration.
    """
    cfg, source = run.config.merge, source_of_branches(run)
    merger = lookup(MERGERS, cfg.method, "merge.method")
    branches = finished_branches(source)
    readers = [OrbaxLeaves(params_directory(source.workdir.branch(k) / "checkpoints")) for k in range(len(branches))]
    inputs = {
        "theta0": run.theta0_fingerprint,
        "method": cfg.method,
        "options": _options(run),
        "branches": [fingerprint(branch["inputs"]) for branch in branches],
    }
    if merger.fisher:
        inputs["fisher"] = {"examples": run.config.gradients.examples}
    record = run.workdir.merge_record
    if is_current(record, inputs, overwrite=run.overwrite):
        return False
    for k, reader in enumerate(readers):
        checks.same_leaves(run.theta0.leaves().paths(), reader.paths(), f"branch {k}")
    tokens = [branch["tokens"] for branch in branches]
    weights = token_weights(tokens)
    distances = [distance(reader, run.theta0.leaves()) for reader in readers]
    options = settle(merger.leaf, _matched(run, inputs["options"], distances))
    fishers = _fishers(source, len(branches)) if merger.fisher else []
    out = run.workdir.merged_params

    def write() -> None:
        if run.workdir.merged.exists():
            run.workdir.merged.rmtree()
        with bar(len(run.theta0.leaves().paths()), "merge", "parameter") as progress:
            merge_streamed(
                merger, run.theta0.leaves(), readers, weights, out, lambda _: progress.update(), fishers, **options
            )
        result = {
            "inputs": inputs,
            "method": cfg.method,
            "options": options,
            "tokens": tokens,
            "weights": [float(weight) for weight in weights],
            "displacement": {
                "merged": distance(OrbaxLeaves(out), run.theta0.leaves()),
                "branches": distances,
            },
        }
        if (text := _for_mergekit(run, result["weights"], options)) is not None:
            write_text(run.workdir.merged / "mergekit.yaml", text)
        write_json(record, result)

    run.on_first_process(write)
    return True


def _fishers(run: Run, branches: int) -> list[OrbaxLeaves]:
    """The Fisher information of every branch, estimated where it is missing."""
    for k in range(branches):
        estimate_fisher(run, k)
    return [fisher_leaves(run, k) for k in range(branches)]


def _for_mergekit(run: Run, weights: Sequence[float], options: Mapping[str, Any]) -> str | None:
    """The same merge for mergekit, once the branches have been exported; None where it has no such method."""
    branches = [f"branches/{k}/hf" for k in range(len(weights))]
    method = run.config.merge.method
    return recipe(method, options, "theta0", branches, weights, stacked=True, comment=FOR_MERGEKIT)


def export(run: Run) -> bool:
    """Writes the merged model as a folder that other tools load, with its tokenizer and a model card."""
    out = run.workdir.merged_hf
    inputs = read_json(run.workdir.merge_record)["inputs"]
    if is_current(out / "merit.json", inputs, overwrite=run.overwrite):
        return False
    leaves = OrbaxLeaves(run.workdir.merged_params)
    if out.exists():
        run.on_first_process(out.rmtree)
    run.on_first_process(lambda: run.theta0.export(leaves.read, out, merged_card(run)))
    return True


def finished_branches(run: Run) -> list[dict[str, Any]]:
    """The `done.json` of every branch, after checking that it belongs to this run."""
    found = []
    for index, branch in enumerate(load_plan(run).branches):
        done = run.workdir.branch_done(index)
        if not done.exists():
            raise ValueError(
                f"branch {index} is not finished ({done} is missing); train it: launch.branch --branch={index}"
            )
        is_current(done, branch_inputs(run, branch), overwrite=False)
        found.append(read_json(done))
    return found


def source_of_branches(run: Run) -> Run:
    """The run whose branches are merged: this one, unless `merge.branches` names another's workdir."""
    other = run.config.merge.branches
    return run.beside(run.config, Workdir.at(other)) if other else run


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
    if "seed" in takes(lookup(MERGERS, cfg.method, "merge.method").leaf):
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
