"""Chooses a method from forecasts, and says why."""

from collections.abc import Mapping
from typing import NamedTuple

from merit_jax.advice.forecaster import Forecast
from merit_jax.advice.observations import JOINT

CERTAIN = 1.96
"""Standard deviations that an expected difference has to be from 0 to count as one: a 95 % interval."""


class Recommendation(NamedTuple):
    """A method to train with.

    Attributes:
        method: The method.
        reason: A key of `REASONS`.
        best: The method apart with the highest forecast.
    """

    method: str
    reason: str
    best: str


REASONS = {
    "joint_better": "joint training is expected to be better than every way of training apart, beyond the uncertainty",
    "joint_within": "no way of training apart is expected to differ from joint training by more than the uncertainty, and your "
    "machines can train together",
    "apart_better": "it is expected to be better than joint training, beyond the uncertainty",
    "apart_within": "its difference from joint training is within the uncertainty, and your machines cannot train together",
}
"""Reason -> the sentence."""


def recommend(forecasts: Mapping[str, Forecast], *, cluster: bool) -> Recommendation:
    """Recommends joint training unless another method is better beyond the uncertainty, or is as good and joint is not at hand.

    Args:
        forecasts: Method -> forecast of its difference from joint training; at least one that is not joint training.
        cluster: Whether the machines can train one model together.

    Examples:
        >>> forecasts = {"joint": Forecast(0.0, 0.0, 0.0), "examples4": Forecast(1.0, 2.0, 3.0)}
        >>> recommend(forecasts, cluster=True).method, recommend(forecasts, cluster=False).method
        ('joint', 'examples4')
    """
    apart = {method: found for method, found in forecasts.items() if method != JOINT}
    best = max(apart, key=lambda method: apart[method].mean)
    mean, room = apart[best].mean, CERTAIN * apart[best].std
    if mean < -room:
        return Recommendation(JOINT, "joint_better", best)
    if mean > room:
        return Recommendation(best, "apart_better", best)
    return Recommendation(JOINT, "joint_within", best) if cluster else Recommendation(best, "apart_within", best)
