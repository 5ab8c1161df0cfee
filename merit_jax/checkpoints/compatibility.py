"""Checks that models have the same parameters, leaf by leaf."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def same_tree(
    base: Mapping[str, Any], branches: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None
) -> None:
    """Checks that every branch has exactly theta0's paths, shapes and dtypes; `names` are the branches' in messages."""
    for k, branch in enumerate(branches):
        name = f"branch {k}" if names is None else names[k]
        for path in base:
            if path not in branch:
                raise ValueError(f"{path}: theta0 has it, {name} lacks it; merge branches of the same model only")
        same_leaves(base, branch, name)


def same_leaves(base: Mapping[str, Any], other: Mapping[str, Any], name: str) -> None:
    """Checks that every leaf of `other` is in theta0, with the same shape and dtype."""
    for path, leaf in other.items():
        if path not in base:
            raise ValueError(f"{path}: {name} has it, theta0 lacks it; merge branches of the same model only")
        got, expected = (f"{np.dtype(x.dtype).name}{list(x.shape)}" for x in (leaf, base[path]))
        if got != expected:
            raise ValueError(f"{path}: {name} has {got}, theta0 has {expected}; they must be the same")
