"""The branches: their datasets, samples, tokens and weights."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from merit_jax.reporting.bars import Entry, bars
from merit_jax.reporting.blocks import Cell, Missing, Part, Section, Table
from merit_jax.reporting.figures import Figure
from merit_jax.reporting.run_data import Artifacts
from merit_jax.reporting.theme import look


def split(artifacts: Artifacts) -> Section:
    """Returns the section on the branches and their datasets."""
    return Section("split", "Which dataset went where, and what it weighs", tuple(_parts(artifacts)))


def _parts(artifacts: Artifacts) -> Iterator[Part]:
    if artifacts.branches:
        yield branch_table(artifacts)
        yield token_figure(artifacts)
        yield (
            weights_figure(artifacts.merge)
            if artifacts.merge
            else Missing("Weights of the merge", artifacts.run_command("merge"))
        )
    else:
        yield Missing("The branches and their datasets", artifacts.run_command("partition"))
    if artifacts.datasets:
        yield dataset_table(artifacts)


def branch_table(artifacts: Artifacts) -> Table:
    """Returns a table with one row for each branch."""
    weights = artifacts.merge["weights"] if artifacts.merge else [None] * len(artifacts.branches)
    rows: list[list[str | Cell]] = []
    for index, (branch, weight) in enumerate(zip(artifacts.branches, weights, strict=True)):
        names = [name if parts == 1 else f"{name} ({part + 1} of {parts})" for name, part, parts in branch.shares]
        share = "" if weight is None else f"{weight:.3f}"
        rows.append(
            [
                Cell(str(index), branch=index),
                f"{branch.samples:,}",
                f"{branch.tokens:,}",
                share,
                ", ".join(sorted(names)),
            ]
        )
    header = ["branch", "samples", "tokens", "weight", "datasets"]
    return Table("Branches; the weight is theirs in the merge", header, rows, words=(4,))


def token_figure(artifacts: Artifacts) -> Figure:
    """Returns the supervised tokens of each branch, by which the merge weighs them."""
    entries = [
        Entry(f"branch {index}", branch.tokens, f"{branch.tokens:,}", look(index)[0])
        for index, branch in enumerate(artifacts.branches)
    ]
    return Figure(
        "tokens",
        "Supervised tokens of each branch",
        partial(bars, entries, "supervised tokens", height=90 + 30 * len(entries)),
        "The split balances samples; a token-weighted merge then weighs each branch by its tokens.",
    )


def weights_figure(merge: Mapping[str, Any]) -> Figure:
    """Returns the weights w_k of the merge."""
    entries = [
        Entry(f"branch {index}", weight, f"{weight:.3f}", look(index)[0])
        for index, weight in enumerate(merge["weights"])
    ]
    return Figure(
        "weights",
        "Weights of the merge",
        partial(bars, entries, "weight", height=90 + 30 * len(entries)),
        f"Operator: {merge['method']}. Each weight is the branch's share of all supervised tokens trained on.",
    )


def dataset_table(artifacts: Artifacts) -> Table:
    """Returns a table with one row for each dataset, with its mean cosines within its own branch and with the others."""
    groups, found = artifacts.groups, artifacts.conflict
    header = ["dataset", "branch", "samples", "tokens", "gradient norm", "cosine within branch", "with others"]
    rows: list[list[str | Cell]] = []
    for name, entry in sorted(artifacts.datasets.items(), key=lambda item: (groups.get(item[0], -1), item[0])):
        group = groups.get(name)
        norm = f"{artifacts.norms[name]:.3g}" if name in artifacts.norms else ""
        cosines = ["", ""]
        if found and found.similarity is not None and name in found.names and group is not None:
            row = found.similarity[found.names.index(name)]
            same = np.array([groups.get(other) == group and other != name for other in found.names])
            apart = np.array([groups.get(other) != group for other in found.names])
            cosines = [f"{row[chosen].mean():.2f}" if chosen.any() else "" for chosen in (same, apart)]
        place = Cell("all" if group is None and artifacts.branches else str(group or 0), branch=group)
        rows.append(
            [name, place if artifacts.branches else "", f"{entry['samples']:,}", f"{entry['tokens']:,}", norm, *cosines]
        )
    return Table(f"All {len(rows)} datasets", header, rows, folded=True)
