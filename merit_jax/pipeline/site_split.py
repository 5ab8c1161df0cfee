"""The split of a run whose datasets may not leave their sites (`partition.sites`)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from merit_jax.partition.partitioner import Shares
from merit_jax.partition.sites import groups_of_sites, mean_cosine_inside, sites_by_rule
from merit_jax.pipeline.datasets import record_elsewhere
from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifacts import read_json

JOINED = "joined"
"""Value of `partition.sites` for the sites that `merit join` found."""

HERE = "here"
"""Name of the site of datasets that are where sites are joined."""


def known_sites(run: Run) -> dict[str, str]:
    """Returns the site of each dataset that a record of the workdir names."""
    record = record_elsewhere(run.workdir, allowed=run.config.mixture.elsewhere)
    entries = {} if record is None else read_json(record[0]).get("datasets", {})
    return {name: entry["site"] for name, entry in entries.items() if "site" in entry}


def sites_of(run: Run, datasets: np.ndarray) -> dict[str, str]:
    """Returns the site of each of some datasets, by `partition.sites`; nothing where that is empty.

    Args:
        run: The run.
        datasets: Numbers of the datasets, in the run's order.

    Raises:
        ValueError: A site is unknown.
    """
    rules, names = tuple(run.config.partition.sites), [run.names[i] for i in datasets.tolist()]
    if not rules:
        return {}
    if rules != (JOINED,):
        return dict(zip(names, sites_by_rule(names, rules), strict=True))
    known = known_sites(run)
    if not known:
        raise ValueError(
            "partition.sites = 'joined': the sites are not known here; join them first (merit join), set mixture.elsewhere, or "
            "give rules as PATTERN=SITE"
        )
    return {name: known.get(name, HERE) for name in names}


def split_by_sites(
    run: Run, datasets: np.ndarray, sites: dict[str, str], split: Callable[[np.ndarray, int], Shares]
) -> Shares:
    """Returns shares in which every branch has datasets of one site.

    Args:
        run: The run.
        datasets: Numbers of the datasets.
        sites: Site of each of them, by name.
        split: (datasets, number of groups) -> shares of them in these groups.

    Raises:
        ValueError: The groups cannot be dealt to the sites.
    """
    places = np.array([sites[run.names[i]] for i in datasets.tolist()])
    counts = groups_of_sites(places.tolist(), np.array(run.samples)[datasets], run.config.partition.groups)
    shares, first = np.zeros((datasets.size, run.config.partition.groups)), 0
    for site, count in counts.items():
        own = np.flatnonzero(places == site)
        shares[own, first : first + count] = split(datasets[own], count)
        first += count
    return shares


def describe_sites(sites: dict[str, str], similarity: np.ndarray | None, own: Shares, free: Shares) -> dict[str, Any]:
    """Returns what `partition.json` says of the sites, and what they cost: the mean cosine of datasets inside a group.

    Args:
        sites: Site of each dataset that is split.
        similarity: C of these datasets; None where it was not formed, or is not used.
        own: Their shares under the constraint.
        free: Their shares without it.
    """
    found: dict[str, Any] = {"of": sites}
    if similarity is not None:
        found["cosine_inside"] = mean_cosine_inside(similarity, own.argmax(axis=1))
        found["cosine_inside_free"] = mean_cosine_inside(similarity, free.argmax(axis=1))
    return found
