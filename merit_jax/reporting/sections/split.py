"""The branches: their datasets, samples, tokens and weights."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from merit_jax.merging.search_summary import block_names, summary
from merit_jax.reporting.bars import Entry, bars
from merit_jax.reporting.blocks import Cell, Missing, Part, Section, Table, Text
from merit_jax.reporting.figures import Figure
from merit_jax.reporting.run_data import Artifacts
from merit_jax.reporting.theme import look


def split(artifacts: Artifacts) -> Section:
    """Returns the section on the branches and their datasets."""
    return Section("split", "Which dataset went where, and what it weighs", tuple(_parts(artifacts)))


def _parts(artifacts: Artifacts) -> Iterator[Part]:
    if artifacts.branches:
        yield branch_table(artifacts)
        if artifacts.sites:
            yield Text(cost_of_sites(artifacts.sites))
        yield token_figure(artifacts)
        yield merge_weights(artifacts)
    else:
        yield Missing("The branches and their datasets", artifacts.run_command("partition"))
    if artifacts.datasets:
        yield dataset_table(artifacts)


def branch_table(artifacts: Artifacts) -> Table:
    """Returns a table with one row for each branch."""
    weights: Sequence[float | None] = _known_weights(artifacts) or [None] * len(artifacts.branches)
    rows: list[list[str | Cell]] = []
    for index, (branch, weight) in enumerate(zip(artifacts.branches, weights, strict=True)):
        names = [share.described for share in branch.shares]
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
    return Table("Branches; the weight is the one that the merge used", header, rows, words=(4,))


def cost_of_sites(sites: Mapping[str, Any]) -> str:
    """Returns a sentence on groups that do not cross sites, and on what that costs in conflict."""
    count = len(set(sites["of"].values()))
    said = f"No branch has datasets of two of the {count} sites (partition.sites)."
    inside, free = (sites.get(key) for key in ("cosine_inside", "cosine_inside_free"))
    if inside is None or free is None:
        return said
    return (
        f"{said} Two datasets of one branch have a mean cosine of {inside:.3f}; without that constraint it would be {free:.3f}. "
        "The lower it is, the more conflict is left inside branches."
    )


def token_figure(artifacts: Artifacts) -> Figure:
    """Returns the supervised tokens of each branch."""
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


def _known_weights(artifacts: Artifacts) -> list[float] | None:
    """The weights that the merge used; None where it used none, or its record, of an earlier version, does not say."""
    merge = artifacts.merge
    return merge["weights"] if merge and "weighted_mean" in merge else None


def merge_weights(artifacts: Artifacts) -> Part:
    """Returns the weights that the merge used, or a sentence where it used none."""
    merge = artifacts.merge
    if not merge:
        return Missing("Weights of the merge", artifacts.run_command("merge"))
    if "weighted_mean" not in merge:
        return Text(f"The weights of the merge are not known: {artifacts.no_mean}.")
    if "search" in merge and (blocks := block_names(merge["search"])):
        return block_table(merge["search"], blocks)
    if merge["weights"] is None:
        return Text(f"The merge operator, {merge['method']}, uses no weights.")
    return weights_figure(merge)


def weights_figure(merge: Mapping[str, Any]) -> Figure:
    """Returns the weights w_k that the merge used."""
    entries = [
        Entry(f"branch {index}", weight, f"{weight:.3f}", look(index)[0])
        for index, weight in enumerate(merge["weights"])
    ]
    return Figure(
        "weights",
        "Weights of the merge",
        partial(bars, entries, "weight", height=90 + 30 * len(entries)),
        f"Operator: {merge['method']}. {_meaning(merge)}",
    )


def block_table(search: Mapping[str, Any], blocks: Sequence[str]) -> Table:
    """Returns the weights of each branch in each block of layers, as a search found them.

    Args:
        search: Of the merge's record.
        blocks: Names of the blocks.
    """
    rows: list[list[str | Cell]] = [
        [Cell(str(k), branch=k), *(f"{weight:.3f}" for weight in weights)]
        for k, weights in enumerate(zip(*search["rows"], strict=True))
    ]
    return Table(f"Weights of the merge. {summary(search)}", ["branch", *blocks], rows)


def _meaning(merge: Mapping[str, Any]) -> str:
    """The meaning of the weights in a sentence."""
    if not merge["weighted_mean"]:
        return "It uses these weights; the merged model is not the weighted mean of the branches."
    if "search" in merge:
        return f"{summary(merge['search'])} The merged model is the mean of the branches with these weights."
    if merge["method"] != "token_weighted":
        return "The merged model is the mean of the branches with these weights."
    kind = "tokens that the branches read" if "all_tokens" in merge else "supervised tokens trained on"
    return f"Each weight is the branch's share of all {kind}."


def _where(parts: Mapping[int, float]) -> str:
    """The branches that train on a dataset, with their shares where those differ.

    Examples:
        >>> _where({1: 1.0}), _where({0: 0.25, 1: 0.75}), _where({0: 0.5, 1: 0.5}), _where({})
        ('1', '0 (25 %), 1 (75 %)', 'all', '')
    """
    if len(parts) < 2:
        return "".join(map(str, parts))
    alike = max(parts.values()) - min(parts.values()) < ALIKE
    return "all" if alike else ", ".join(f"{k} ({100 * share:.0f} %)" for k, share in parts.items())


ALIKE = 0.05
"""Difference of shares up to which branches count as having as much of a dataset."""


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
        place = Cell(_where(artifacts.parts.get(name, {})), branch=group)
        rows.append(
            [name, place if artifacts.branches else "", f"{entry['samples']:,}", f"{entry['tokens']:,}", norm, *cosines]
        )
    return Table(f"All {len(rows)} datasets", header, rows, folded=True)
