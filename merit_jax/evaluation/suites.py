"""Held-out suites: record files that are no dataset of the mixture, in two kinds.

A *retained* suite asks for what theta0 could already do, a *skill* suite for what the mixture teaches.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np

from merit_jax.core.seeds import fold
from merit_jax.core.types import Record
from merit_jax.data.manifest import read_manifest
from merit_jax.data.mixture import entry_digest, read_entry, sample


class Kinds(NamedTuple):
    """Mean accuracy over the suites of each kind, every suite counting once; None where there are none.

    Attributes:
        retained: Of what theta0 could already do.
        skill: Of what the mixture teaches.
    """

    retained: float | None
    skill: float | None


def load_suites(path: str, *, max_records: int = 0, seed: int) -> dict[str, list[Record]]:
    """Reads the suites of a manifest or glob.

    Args:
        path: See `manifest.read_manifest`.
        max_records: Records per suite, sampled by `seed` and the suite's name; 0 for all.
        seed: The run's seed.

    Raises:
        ValueError: The manifest or a record is bad.
    """
    suites = {}
    for entry in read_manifest(path):
        suites[entry.name] = sample(read_entry(entry), max_records, fold(seed, "suite", entry.name))
    return suites


def suite_digests(path: str) -> dict[str, str]:
    """Suite -> digest of its files, wherever they lie; none without a path."""
    return {entry.name: entry_digest(entry) for entry in read_manifest(path)} if path else {}


def kinds(accuracies: Mapping[str, float], retained: Sequence[str]) -> Kinds:
    """Means over the suites that a name or fnmatch pattern of `retained` matches, and over the others.

    Raises:
        ValueError: A pattern matches no suite.
    """
    for pattern in retained:
        if not any(fnmatchcase(name, pattern) for name in accuracies):
            raise ValueError(f"evaluate.retained: no suite matches {pattern!r}; known: {', '.join(accuracies)}")
    old = [value for name, value in accuracies.items() if any(fnmatchcase(name, pattern) for pattern in retained)]
    new = [value for name, value in accuracies.items() if not any(fnmatchcase(name, p) for p in retained)]
    return Kinds(*(float(np.mean(values)) if values else None for values in (old, new)))
