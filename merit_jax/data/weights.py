"""Weights of datasets: how often an epoch visits each training example, from `mixture.weights`."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int64

from merit_jax.core.ranges import number
from merit_jax.core.seeds import fold
from merit_jax.core.text import matches
from merit_jax.core.types import Dataset
from merit_jax.data.token_cache import as_table

KEY = "mixture.weights"
MOST = 10_000
"""Largest weight: more visits of one example than any training has."""
_MARK = "*"
"""Stands between the digest of a dataset's examples and its weight."""


def dataset_weights(names: Sequence[str], rules: Sequence[str], others: Iterable[str] | None = ()) -> dict[str, float]:
    """Returns the weight of each dataset that a rule names; the others have weight 1.

    Args:
        names: The datasets.
        rules: Each "PATTERN=WEIGHT": a name or fnmatch pattern, and a number above 0.
        others: Names that a rule may mean too, of datasets that are not here; None where they are unknown.

    Raises:
        ValueError: A rule is none, means no dataset, or gives a dataset another weight than a rule before it.

    Examples:
        >>> dataset_weights(["qa", "math", "code"], ["qa=0.5", "c*=2"])
        {'qa': 0.5, 'code': 2.0}
    """
    found: dict[str, float] = {}
    by: dict[str, str] = {}
    away = None if others is None else set(others)
    for rule in rules:
        pattern, weight = _parsed(rule)
        meant = [name for name in names if matches(name, pattern)]
        if not meant and away is not None and not any(matches(name, pattern) for name in away):
            raise ValueError(f"{KEY}: {rule!r}: no dataset matches {pattern!r}; the mixture has {', '.join(names)}")
        for name in meant:
            if found.get(name, weight) != weight:
                raise ValueError(f"{KEY}: dataset {name!r} has two weights, by {by[name]!r} and {rule!r}; keep one")
            found[name], by[name] = weight, rule
    return found


def _parsed(rule: str) -> tuple[str, float]:
    pattern, sign, text = rule.rpartition("=")
    try:
        weight = float(text)
    except ValueError:
        weight = float("nan")
    if not pattern or not sign or not number(above=0, most=MOST).holds(weight):
        zero = "; to leave a dataset out, name the others in mixture.include" if weight == 0 else ""
        raise ValueError(
            f"{KEY}: {rule!r}; expected PATTERN=WEIGHT, with a weight above 0, {MOST:,} at most, as 'flan_*=0.5'{zero}"
        )
    return pattern, weight


def kept_examples(name: str, count: int, weight: float) -> int:
    """Returns how many of a dataset's examples are kept: those of a weight below 1 are a share of them.

    Raises:
        ValueError: None is.
    """
    kept = round(count * min(weight, 1.0))
    if count and not kept:
        raise ValueError(
            f"{KEY}: weight {weight:g} keeps none of the {count} training rows of dataset {name!r}; raise it, or leave the "
            "dataset out with mixture.include"
        )
    return kept


def weighted(dataset: Dataset, weight: float, seed: int) -> Dataset:
    """Returns a dataset whose examples an epoch visits `weight` times: each as often as the whole part says, some once more.

    Which ones follows from the seed and the dataset's name. The report counts visits. Below 1, where the examples have been
    drawn already, each is visited once.

    Args:
        dataset: A dataset whose examples are visited once.
        weight: Above 0.
        seed: The run's seed.

    Examples:
        >>> from merit_jax.core.types import Example, ReadReport
        >>> rows = [Example(np.array([7, i], np.int32), np.array([False, True])) for i in range(4)]
        >>> found = weighted(Dataset("copy", rows, (), ReadReport(("copy.jsonl",), "5e1f", 4, 0, 4, 8)), 2.5, seed=0)
        >>> np.bincount(found.visits).tolist(), found.report.rows, found.report.tokens, found.report.total_tokens
        ([3, 3, 2, 2], 10, 10, 20)
    """
    if weight <= 1:
        return dataset._replace(weight=weight)
    count, whole = len(dataset.train), int(weight)
    extra = np.random.default_rng(fold(seed, "weight", dataset.name)).permutation(count)
    rest = np.sort(extra[: round(count * (weight - whole))])
    visits = np.concatenate([np.tile(np.arange(count), whole), rest]).astype(np.int64)
    return with_visits(dataset._replace(weight=weight), visits)


def with_visits(dataset: Dataset, visits: Int64[np.ndarray, " n"]) -> Dataset:
    """Returns a dataset with other visits of its examples, which the report counts."""
    table = as_table(dataset.train)
    report = dataset.report._replace(
        rows=len(visits),
        tokens=int(table.supervised_counts[visits].sum()),
        total_tokens=int(table.lengths[visits].sum()),
    )
    return dataset._replace(visits=visits, report=report)


def visited_digest(dataset: Dataset) -> str:
    """Returns the digest of what an epoch visits: that of the examples, with the weight where it repeats some."""
    return dataset.report.digest + (f"{_MARK}{dataset.weight:g}" if dataset.weight > 1 else "")


def examples_digest(digest: str) -> str:
    """Returns the digest of the examples from a `visited_digest`."""
    return digest.partition(_MARK)[0]
