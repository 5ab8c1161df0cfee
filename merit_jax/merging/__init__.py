"""One-shot merging of branches (MERIT Alg. 1, step 5).

An operator is a function of one parameter's values, in a file of `operators/` that ends with its entry in `MERGERS`. Some need a
statistic of each branch besides its parameters: Fisher information, Gram matrices of inputs (RegMean), the second moment of Adam.
Those that are defined on pairs of models only (SLERP) are not among them: see `docs/concepts/merge_operators.md`.
"""

import importlib
from collections import UserDict
from typing import Any

from merit_jax.merging.merger import Merger
from merit_jax.merging.operators.average import token_weights

FILES = {
    "token_weighted": "average",
    "uniform": "average",
    "interpolate": "average",
    "task_arithmetic": "task_arithmetic",
    "ties": "ties",
    "dare_linear": "dare",
    "dare_ties": "dare",
    "star": "star",
    "tsv_m": "tsv",
    "iso_c": "iso",
    "iso_cts": "iso",
    "wudi": "wudi",
    "optmerge": "wudi",
    "model_stock": "model_stock",
    "fisher": "fisher_weighted",
    "regmean": "regmean",
    "ota_ffg": "ota",
}
"""Name of a merge operator -> its file in `operators/`."""


class Operators(UserDict[str, Merger]):
    """Merge operators by name; the file of one is imported when it is looked up, so that averages do not wait for JAX."""

    def __init__(self) -> None:
        super().__init__()
        self.data: dict[str, Any] = dict(FILES)

    def __getitem__(self, name: str) -> Merger:
        """Returns the operator of a name."""
        found = self.data[name]
        if isinstance(found, Merger):
            return found
        return importlib.import_module(f"{__name__}.operators.{found}").MERGERS[name]


MERGERS = Operators()
"""Name of a merge operator -> the operator: `MERGERS[name](theta0, [theta_1, ...], weights, **options) -> params`."""

_HOMES = {
    "OrbaxLeaves": "merit_jax.checkpoints.readers",
    "OverlayLeaves": "merit_jax.checkpoints.readers",
    "TreeLeaves": "merit_jax.checkpoints.readers",
    "merge_streamed": "merit_jax.merging.streaming",
}
"""Name that is imported when it is first used -> its module."""

__all__ = ["MERGERS", "Merger", "token_weights", *_HOMES]


def __getattr__(name: str) -> Any:
    """Imports a name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
