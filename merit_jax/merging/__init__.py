"""One-shot merging of branches (MERIT Alg. 1, step 5).

An operator is a function of one parameter's values, in a file here, with an entry in `MERGERS`. Some need a statistic of each
branch besides its parameters: Fisher information, Gram matrices of inputs (RegMean), the second moment of Adam. Those that are
defined on pairs of models only (SLERP) are not among them: see `docs/concepts/merge_operators.md`.
"""

from collections.abc import Mapping
from typing import Any

from merit_jax.checkpoints.readers import OrbaxLeaves, OverlayLeaves, TreeLeaves
from merit_jax.merging.merger import Merger, merge_streamed
from merit_jax.merging.operators import (
    average,
    dare,
    fisher_weighted,
    iso,
    model_stock,
    ota,
    regmean,
    star,
    task_arithmetic,
    ties,
    tsv,
    wudi,
)
from merit_jax.merging.operators.average import equal_weights, given_weights, scale_weights, token_weights
from merit_jax.merging.statistics import FISHER, INPUT_GRAMS, SECOND_MOMENT


def _unweighted(options: Mapping[str, Any]) -> bool:
    return False


MERGERS: dict[str, Merger] = {
    "token_weighted": Merger(average.token_weighted, linear=given_weights),
    "uniform": Merger(average.uniform, weighted=_unweighted, linear=equal_weights),
    "interpolate": Merger(average.interpolate, weighted=_unweighted, linear=scale_weights),
    "task_arithmetic": Merger(task_arithmetic.task_arithmetic, weighted=_unweighted, linear=scale_weights),
    "ties": Merger(ties.ties, survey=ties.thresholds, weighted=ties.weighted),
    "dare_linear": Merger(dare.dare_linear),
    "dare_ties": Merger(dare.dare_ties, weighted=ties.weighted),
    "star": Merger(star.star),
    "tsv_m": Merger(tsv.tsv_m),
    "iso_c": Merger(iso.iso_c),
    "iso_cts": Merger(iso.iso_cts),
    "wudi": Merger(wudi.wudi),
    "optmerge": Merger(wudi.optmerge),
    "model_stock": Merger(model_stock.model_stock, weighted=_unweighted, least=2),
    "fisher": Merger(fisher_weighted.fisher, statistic=FISHER),
    "regmean": Merger(regmean.regmean, statistic=INPUT_GRAMS),
    "ota_ffg": Merger(ota.ota_ffg, survey=ota.thresholds, weighted=_unweighted, statistic=SECOND_MOMENT),
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
