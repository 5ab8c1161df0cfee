"""Features of a mixture and of a method on it: all that the forecast knows, and all of it measured before training."""

import math
from collections.abc import Mapping
from typing import NamedTuple


class Feature(NamedTuple):
    """One measure of a mixture.

    Attributes:
        label: In words.
        tolerance: Smallest difference that makes another mixture.
        doubling: Whether the feature is the base-2 logarithm of the quantity.
    """

    label: str
    tolerance: float
    doubling: bool = False

    def show(self, value: float) -> str:
        """Returns the quantity as text.

        Examples:
            >>> Feature("steps", 1.0, doubling=True).show(10.0), Feature("cosine", 0.1).show(0.25)
            ('1,024', '0.25')
        """
        return (
            f"{2**value:,.3g}"
            if self.doubling and value < 9
            else f"{2**value:,.0f}"
            if self.doubling
            else f"{value:.2f}"
        )


MIXTURE: dict[str, Feature] = {
    "shared": Feature("mean cosine of the datasets' gradients, without noise", 0.05),
    "axes": Feature("share of the conflict on its first three axes", 0.1),
    "reliability": Feature("mean reliability of a dataset's gradient", 0.1),
    "loss": Feature("loss of theta0 on the mixture (nats per token)", 0.25),
    "steps": Feature("optimizer steps of joint training", 1.0, doubling=True),
    "passes": Feature("passes over the mixture", 1.0, doubling=True),
    "datasets": Feature("datasets", 1.0, doubling=True),
    "parameters": Feature("trained parameters", 2.0, doubling=True),
}
"""Name of a feature of a mixture -> the feature."""

METHOD = ("apart", "halvings", "by_dataset", "coreless", "by_conflict", "gap")
"""Features of a method on a mixture; all are 0 for joint training, whose gain over itself is 0."""

PILOT = ("pilot_gap", "pilot_loss")
"""Further features from a pilot: 1 less the cosine of the task vectors, and the merged loss less joint training's."""


def mixture_features(
    *,
    shared: float,
    axes: float,
    reliability: float,
    loss: float,
    steps: int,
    passes: float,
    datasets: int,
    parameters: int,
) -> dict[str, float]:
    """Returns the features of a mixture, by the names of `MIXTURE`.

    Args:
        shared: Mean cosine of the datasets' gradients, without noise.
        axes: Share of the conflict on its first three axes.
        reliability: Mean reliability of a dataset's gradient.
        loss: theta0's loss, in nats per supervised token.
        steps: Optimizer steps of joint training.
        passes: Passes over the mixture, `train.epochs`.
        datasets: Number of datasets.
        parameters: Number of trained parameters.
    """
    counts = {"steps": steps, "passes": passes, "datasets": datasets, "parameters": parameters}
    plain = {"shared": shared, "axes": axes, "reliability": reliability, "loss": loss}
    return {**plain, **{name: math.log2(value) for name, value in counts.items()}}


def method_features(
    *, branches: int, by_dataset: bool, by_conflict: bool, core: float, agreement: float
) -> dict[str, float]:
    """Returns the features of a method on a mixture, by the names of `METHOD`.

    Args:
        branches: K.
        by_dataset: Whether datasets are kept together in branches.
        by_conflict: Whether the gradients decide which.
        core: Share of every dataset that all branches have a part of.
        agreement: Mean cosine of the gradients of the branches' data.

    Examples:
        >>> method_features(branches=4, by_dataset=True, by_conflict=False, core=0.25, agreement=0.75)
        {'apart': 1.0, 'halvings': 2.0, 'by_dataset': 1.0, 'coreless': 0.0, 'by_conflict': 0.0, 'gap': 0.25}
    """
    if branches == 1:
        return dict.fromkeys(METHOD, 0.0)
    kept = by_dataset and core < 1
    found = (1.0, math.log2(branches), kept, kept and core == 0, kept and by_conflict, 1 - agreement)
    return {name: float(value) for name, value in zip(METHOD, found, strict=True)}


def pilot_features(cosine: float | None, loss: float, joint: float) -> dict[str, float]:
    """Returns the features of a method from a pilot, by the names of `PILOT`.

    Args:
        cosine: Mean cosine of the branches' task vectors; None of a single branch.
        loss: Of the method's merged model.
        joint: Of joint training.
    """
    return {"pilot_gap": 0.0 if cosine is None else 1 - cosine, "pilot_loss": loss - joint}


def vector(features: Mapping[str, float], names: tuple[str, ...]) -> list[float]:
    """Returns features in the order of their names.

    Raises:
        ValueError: One is missing.
    """
    if missing := [name for name in names if name not in features]:
        raise ValueError(f"features {', '.join(missing)} were not measured; run merit advise of this version again")
    return [float("nan") if features[name] is None else float(features[name]) for name in names]
