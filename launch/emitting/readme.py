"""Writes the README of emitted branches: what is in them, how to train them, how to merge, and what is not carried over."""

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from merit_jax.launch.emitting.interface import Emitter, output_folder
from merit_jax.merging import MERGERS
from merit_jax.merging.model_card import escape
from merit_jax.merging.options import resolve_options
from merit_jax.partition import Partition
from merit_jax.pipeline.merge_options import given_options


def readme(emitter: Emitter, partition: Partition, config: Any, base: str, notes: Sequence[str]) -> str:
    """Returns the README.

    Args:
        emitter: The tool.
        partition: The branches.
        config: The run's config.
        base: Folder of theta0.
        notes: What the tool does differently.
    """
    count = len(partition.branches)
    rows = [
        f"| {k} | {samples} | {tokens} | {escape(', '.join(share.described for share in branch.shares))} |"
        for k, (branch, samples, tokens) in enumerate(
            zip(partition.branches, partition.samples, partition.tokens, strict=True)
        )
    ]
    differences = [*notes, *unsaid_of_merge(config)]
    return "\n".join(
        [
            f"# {count} branches for {emitter.name}",
            "",
            f"The split `{partition.method}` of a mixture, written by merit partition. Train every branch from the same",
            "checkpoint, alone, on whatever machines; then merge the trained folders once.",
            "",
            "| branch | rows | supervised tokens of an epoch | datasets |",
            "|---|---|---|---|",
            *rows,
            "",
            "## Train",
            "",
            *(f"    (cd branch-{k} && {emitter.command})" for k in range(count)),
            "",
            "The model of a branch is `branch-<k>/model-<k>`. Its folder may be moved to another machine, with theta0's",
            f"(`{base}`) and images under the paths that its files name.",
            "",
            "## Merge",
            "",
            f"    {merge_command(config, base, count)}",
            "",
            "## What is not as in merit run",
            "",
            *(f"* {note}" for note in dict.fromkeys(differences)),
            "",
            f"The files were checked with {emitter.checked}.",
            "",
        ]
    )


def merge_command(config: Any, base: str, branches: int) -> str:
    """Returns the command that merges the trained branches as the config says, as far as `merit merge` can."""
    models = ",".join(f"branch-{k}/{output_folder(k)}" for k in range(branches))
    words = ["merit", "merge", f"--base={base}", f"--models={models}"]
    options, weighted = {}, True
    if not _only_in_a_run(config) and config.merge.method != "token_weighted":
        options = given_options(config.merge)
        words.append(f"--method={config.merge.method}")
        words += [f"--options={json.dumps(options)}"] if options else []
        merger = MERGERS[config.merge.method]
        weighted = merger.weighted(resolve_options(merger.leaf, options))
    words += ["--partition=partition.json"] if weighted else []
    return shlex.join([*words, "--out=merged"])


def _only_in_a_run(config: Any) -> str:
    """Returns the key that asks for a merge that folders do not have; "" for none."""
    cfg = config.merge
    if MERGERS[cfg.method].statistic is not None:
        return f"merge.method = {cfg.method!r}"
    if cfg.match or (cfg.method == "interpolate" and "scale" not in given_options(cfg)):
        return f"merge.match = {cfg.match!r}"
    if cfg.search_evaluations:
        return f"merge.search_evaluations = {cfg.search_evaluations}"
    return ""


def unsaid_of_merge(config: Any) -> Iterator[str]:
    """Yields in sentences what `merit merge` does otherwise than the config says."""
    if key := _only_in_a_run(config):
        yield f"{key} needs more than the trained folders: the command above averages by supervised tokens instead."
    if config.merge.tokens != "supervised":
        yield (
            f"merge.tokens = {config.merge.tokens!r}: the partition counts supervised tokens, and the command above weighs by "
            "them."
        )
