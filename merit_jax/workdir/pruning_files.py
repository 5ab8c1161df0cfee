"""Paths of what the removal of attention heads leaves in a workdir."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from merit_jax.workdir.checksums import fingerprint

WHOLE, PRUNED, RECOVERED = "whole", "pruned", "recovered"
"""Names of the model with all its heads, and without those that go, before and after it is trained again."""

OF_A_CURVE = ("criterion", "alpha", "ratio")
"""Keys of `config.prune` that each model of the curves has a value of its own for."""

SCORED_ON = ("theta0", "text", "examples", "datasets", "dtype")
"""Inputs of a choice of heads that decide their scores."""


def basis_of_curves(inputs: Mapping[str, Any]) -> str:
    """Returns a fingerprint of what a choice of heads has in common with the curves that belong to it.

    Args:
        inputs: Those that the choice records, as JSON values.
    """
    settings = {key: value for key, value in inputs["prune"].items() if key not in OF_A_CURVE}
    return fingerprint({**{key: inputs.get(key) for key in SCORED_ON}, "prune": settings})


@dataclasses.dataclass(frozen=True)
class PruningFiles:
    """The files of a model that is pruned.

    Attributes:
        root: The workdir.
    """

    root: epath.Path

    def scores(self, mark: str) -> epath.Path:
        """Returns the scores of heads; `mark` stands for the heads that are pruned already, and is empty where none is."""
        return self.root / f"heads{mark and '-'}{mark}.npz"

    @property
    def choice(self) -> epath.Path:
        """The heads that go and those that stay, and the scores by which they were chosen."""
        return self.root / "pruning.json"

    @property
    def recovery(self) -> epath.Path:
        """The workdir in which the pruned model is trained again."""
        return self.root / "recovery"

    @property
    def curve(self) -> epath.Path:
        """Scores of the model pruned by every criterion at several ratios."""
        return self.root / "curve.json"

    def recovery_of(self, name: str) -> epath.Path:
        """Returns the workdir in which a model of the curves is trained again."""
        return self.root / "curve" / name

    @property
    def exported(self) -> epath.Path:
        """The pruned model as a Hugging Face folder."""
        return self.root / "hf"

    @property
    def costs(self) -> epath.Path:
        """Size and speed of the model before and after."""
        return self.root / "costs.json"
