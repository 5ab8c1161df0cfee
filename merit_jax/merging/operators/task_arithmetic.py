"""Task arithmetic: Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023."""

from collections.abc import Sequence

from merit_jax.core.leaves import Leaf
from merit_jax.merging.merger import Merger, unweighted
from merit_jax.merging.operators.average import scale_weights
from merit_jax.merging.operators.task_vectors import Parameter, moved, task_vectors, total


def task_arithmetic(parameter: Parameter, weights: Sequence[float], *, scale: int | float = 0.4) -> Leaf:
    """Merges to `θ_0 + λ Σ_k τ_k`, τ_k = θ_k − θ_0 (§2).

    The sum takes no weights. One branch is moved to λ of its task vector.

    Args:
        scale: λ. The authors use 0.4 where no data is held out to choose it.
    """
    return moved(parameter.base, total(task_vectors(parameter)), scale)


MERGERS = {"task_arithmetic": Merger(task_arithmetic, weighted=unweighted, linear=scale_weights, elementwise=True)}
"""Name -> the operator."""
