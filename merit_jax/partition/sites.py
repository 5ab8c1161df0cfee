"""Sites: datasets that may not leave the place where they are, so that no group has datasets of two."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from merit_jax.core.text import matches
from merit_jax.core.types import Array


def sites_by_rule(names: Sequence[str], rules: Sequence[str]) -> list[str]:
    """Returns the site of each dataset.

    Args:
        names: The datasets.
        rules: "PATTERN=SITE", of which the first that matches holds.

    Raises:
        ValueError: A rule is of another form or matches nothing, or a dataset has no site.

    Examples:
        >>> sites_by_rule(["ct_lung", "ct_skin", "notes"], ["ct_*=a", "notes=b"])
        ['a', 'a', 'b']
    """
    parted = [rule.rpartition("=") for rule in rules]
    for rule, (pattern, _, site) in zip(rules, parted, strict=True):
        if not pattern or not site:
            raise ValueError(f"partition.sites: {rule!r} is no rule; expected PATTERN=SITE, as 'ct_*=hospital'")
        if not any(matches(name, pattern) for name in names):
            raise ValueError(
                f"partition.sites: no dataset matches {pattern!r} of {rule!r}; the mixture has {', '.join(names)}"
            )
    found = [next((site for pattern, _, site in parted if matches(name, pattern)), "") for name in names]
    if "" in found:
        raise ValueError(
            f"partition.sites: dataset {names[found.index('')]!r} matches no rule, so that its site is unknown; add one, or name "
            "the dataset in partition.core_datasets if its examples may go to all branches"
        )
    return found


def groups_of_sites(sites: Sequence[str], samples: Sequence[int] | Int[Array, " t"], groups: int) -> dict[str, int]:
    """Deals groups to sites by their examples: a power of two for each, so that each can be halved along conflict axes.

    From one each, the site with the most examples per group gets twice as many, as long as there are as many left.

    Args:
        sites: Site of each dataset.
        samples: s_t.
        groups: K, a power of two.

    Returns:
        Site -> number of groups, in order of the names; they sum to K.

    Raises:
        ValueError: There are more sites than groups, or too few datasets where groups would have to be.

    Examples:
        >>> groups_of_sites(["a", "a", "a", "b", "c"], [10, 10, 10, 5, 5], 4)
        {'a': 2, 'b': 1, 'c': 1}
    """
    datasets, held = Counter(sites), Counter[str]()
    for site, count in zip(sites, np.asarray(samples).tolist(), strict=True):
        held[site] += count
    found = dict.fromkeys(sorted(datasets), 1)
    if len(found) > groups:
        raise ValueError(
            f"partition.groups = {groups}, and partition.sites names {len(found)} sites ({', '.join(found)}), each with a group "
            "of its own; raise it"
        )
    while (left := groups - sum(found.values())) > 0:
        able = [site for site, count in found.items() if count <= left and 2 * count <= datasets[site]]
        if not able:
            raise ValueError(
                f"partition.groups = {groups}: the sites have too few datasets for so many groups that no two share "
                f"({', '.join(f'{site}: {datasets[site]}' for site in found)}); lower it"
            )
        most = max(able, key=lambda site: held[site] / found[site])
        found[most] *= 2
    return found


def mean_cosine_inside(similarity: Float[Array, "t t"], groups: Int[Array, " t"]) -> float | None:
    """Returns the mean cosine of two different datasets of one group, over all such pairs; None where there are none.

    Examples:
        >>> mean_cosine_inside(np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]), np.array([0, 0, 1]))
        0.5
    """
    groups = np.asarray(groups)
    pairs = np.triu(groups[:, None] == groups[None, :], k=1)
    return float(np.asarray(similarity, np.float64)[pairs].mean()) if pairs.any() else None
