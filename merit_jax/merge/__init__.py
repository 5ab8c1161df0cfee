"""One-shot merging of branches (MERIT Alg. 1, step 5).

An operator is a function of one parameter's values, in a file here, with an entry in `MERGERS`.
"""

from merit_jax.merge import average
from merit_jax.merge.average import token_weights
from merit_jax.merge.leaves import OrbaxLeaves, OverlayLeaves, TreeLeaves
from merit_jax.merge.merger import Merger
from merit_jax.merge.stream import merge_streamed

MERGERS: dict[str, Merger] = {
    "token_weighted": Merger(average.token_weighted),
    "uniform": Merger(average.uniform),
    "interpolate": Merger(average.interpolate),
}
"""Name of a merge operator -> the operator: `MERGERS[name](theta0, [theta_1, ...], weights, **options) -> params`."""

__all__ = [
    "MERGERS",
    "Merger",
    "OrbaxLeaves",
    "OverlayLeaves",
    "TreeLeaves",
    "merge_streamed",
    "token_weights",
]
