"""A branch's low-rank updates written into theta0's kernels, one at a time: what merging, evaluating and measuring read."""

import numpy as np

from merit_jax.core.adapters import Adapter
from merit_jax.core.leaves import LeafReader, LeafSpec


class FoldedLeaves:
    """The kernels of theta0 that a branch has changed, with their updates.

    Args:
        theta0: All leaves that the branch started from.
        updates: The leaves that it trained.
        adapter: The form of the updates.

    Raises:
        ValueError: The trained leaves are not those of the updates.

    Attributes:
        updates: The leaves that the branch trained.
    """

    def __init__(self, theta0: LeafReader, updates: LeafReader, adapter: Adapter) -> None:
        self._theta0, self.updates, self._adapter = theta0, updates, adapter
        found, expected = updates.paths(), adapter.abstract
        odd = sorted(found.keys() ^ expected.keys()) or [
            path for path in expected if found[path].shape != expected[path].shape
        ]
        if odd:
            raise ValueError(
                f"{odd[0]}: the branch has {_shape(found.get(odd[0]))}, and train.adapter asks for "
                f"{_shape(expected.get(odd[0]))}; train the branch again with these settings"
            )

    def paths(self) -> dict[str, LeafSpec]:
        """Returns path name -> shape and dtype of the kernels that have updates, sorted by name."""
        known = self._theta0.paths()
        return {path: known[path] for path in sorted(self._adapter.kernels)}

    def read(self, path: str) -> np.ndarray:
        """Reads a kernel and its update, and returns their sum."""
        return self._adapter.fold(path, self._theta0.read(path), self.updates.read)


def _shape(spec: LeafSpec | None) -> str:
    return "no such leaf" if spec is None else f"one of shape {list(spec.shape)}"
