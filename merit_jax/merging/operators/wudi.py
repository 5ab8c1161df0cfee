"""WUDI-Merging (Cheng et al., ICML 2025) and OptMerge (Wei et al., 2025): task vectors that stand for their inputs.

WUDI: Whoever Started the Interference Should End It, arXiv:2503.08099. OptMerge: arXiv:2505.19892.
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy
from jaxtyping import Float

from merit_jax.core.types import Array
from merit_jax.merging.merger import Merger
from merit_jax.merging.operators.average import scaled_average
from merit_jax.merging.operators.normal_equations import Matrix, per_layer, solve
from merit_jax.merging.operators.task_vectors import Parameter, moved, task_vectors

STARTS: dict[str, Callable[[Sequence[Matrix]], Matrix]] = {
    "sum": lambda taus: sum(taus[1:], taus[0]),
    "mean": lambda taus: sum(taus[1:], taus[0]) / len(taus),
}
"""Value of the option `start` -> the task vector that the merged one stays near."""


def wudi(
    parameter: Parameter,
    weights: Sequence[float],
    *,
    scale: int | float = 1.0,
    damping: int | float = 0.1,
    start: str = "sum",
) -> Array:
    """Merges to `θ_0 + α τ` for matrices, τ the least interference on the inputs that the task vectors span (WUDI, Alg. 1).

    The rows of `τ_k` [out, in] are combinations of the inputs of branch k's data, so what the others do to them is
    `(τ − τ_k) τ_kᵀ`, and τ minimises `Σ_k ‖(τ − τ_k) τ_kᵀ‖² / ‖τ_k‖² + δ ‖τ − τ_s‖²`, Frobenius norms. The paper has no δ: it
    takes 300 steps of Adam at a rate of 1e-5 from `τ_s = Σ_k τ_k`. Its objective is quadratic, with a minimum in closed form,
    but an ill-conditioned one: along inputs with hardly any interference τ becomes larger than all τ_k together. Few steps
    leave those at τ_s, and so does δ, whatever the scale of the task vectors. The minimum with δ is computed exactly, in float64.

    The sum takes no weights. Vectors are moved by α towards their average by `weights`. One branch comes back (α = 1), and so do
    equal branches with `start="mean"`.

    Args:
        scale: α.
        damping: δ, in units of the mean eigenvalue of `Σ_k τ_kᵀ τ_k / ‖τ_k‖²`; 0 is the paper's objective, to rounding.
        start: τ_s, "sum" (paper) or "mean".
    """
    if not parameter.matrix:
        return scaled_average(parameter, weights, scale)

    def merge(taus: list[Matrix], _: tuple[int, ...]) -> Matrix:
        return solve([_gram(tau, _square(tau)) for tau in taus], taus, STARTS[start](taus), damping)

    vectors = [np.asarray(vector) for vector in task_vectors(parameter)]
    return moved(parameter.base, per_layer(merge, vectors, parameter.matrix), scale)


def optmerge(
    parameter: Parameter,
    weights: Sequence[float],
    *,
    scale: int | float = 1.0,
    damping: int | float = 0.1,
    start: str = "sum",
) -> Array:
    """Merges as WUDI does, with task vectors of which the small singular values, taken for noise, are left out (OptMerge).

    τ minimises `Σ_k ‖(τ − τ̂_k) (S_k V_kᵀ)ᵀ‖² / ‖τ_k‖² + δ ‖τ − τ_s‖²` for matrices [out, in]: `U_k S_k V_kᵀ` is `τ_k` cut to its
    ⌊r/K⌋ largest singular values, r = min(m, n), and `τ̂_k` the mean of the task vectors plus `τ_k` minus that mean, cut likewise.
    The authors' code takes 300 steps, of Adam from `Σ_k τ_k` for full fine-tuning, of SGD from the mean for LoRA; here δ does
    what stopping early does, see `wudi`. Without it the cut leaves directions that no branch decides.

    Matrices with fewer than K singular values, and vectors, are moved by α towards their average by `weights`. One branch comes
    back (α = 1), and so do equal branches with `start="mean"`.

    Args:
        scale: α.
        damping: δ, in units of the mean eigenvalue of `Σ_k V_k S_k² V_kᵀ / ‖τ_k‖²`.
        start: τ_s, "sum" or "mean".
    """
    count = min(parameter.base.shape[-2:]) // len(weights) if parameter.matrix else 0
    if not parameter.matrix or not count:
        return scaled_average(parameter, weights, scale)

    def merge(taus: list[Matrix], _: tuple[int, ...]) -> Matrix:
        mean = STARTS["mean"](taus)
        grams = [_gram(_cut(tau, count), _square(tau)) for tau in taus]
        return solve(grams, [mean + _cut(tau - mean, count) for tau in taus], STARTS[start](taus), damping)

    vectors = [np.asarray(vector) for vector in task_vectors(parameter)]
    return moved(parameter.base, per_layer(merge, vectors, parameter.matrix), scale)


def _square(tau: Matrix) -> float:
    """‖τ‖², or 1 for a task vector of zero, which decides nothing."""
    return float(np.square(tau).sum()) or 1.0


def _gram(tau: Matrix, square: float) -> Float[np.ndarray, "inputs inputs"]:
    """The Gram matrix of the inputs that a task vector [in, out] stands for, its columns, divided by ‖τ_k‖²."""
    return tau @ tau.T / square


def _cut(matrix: Matrix, count: int) -> Matrix:
    """A matrix with its largest singular values alone: projected on that many eigenvectors of its smaller Gram matrix."""
    if matrix.shape[0] > matrix.shape[1]:
        return _cut(matrix.T, count).T
    last = len(matrix) - 1
    _, leading = scipy.linalg.eigh(
        matrix @ matrix.T, subset_by_index=(last + 1 - count, last), overwrite_a=True, check_finite=False
    )
    return leading @ (leading.T @ matrix)


MERGERS = {"wudi": Merger(wudi), "optmerge": Merger(optmerge)}
"""Name -> the operator."""
