"""Model Stock: Jang et al., Model Stock: All We Need Is Just a Few Fine-Tuned Models, ECCV 2024."""

from collections.abc import Sequence
from functools import partial
from itertools import combinations

import jax
import jax.numpy as jnp
from jaxtyping import Float

from merit_jax.core.types import Array
from merit_jax.merging.merger import Merger, unweighted
from merit_jax.merging.operators.task_vectors import Parameter, moved, task_vectors


def model_stock(parameter: Parameter, weights: Sequence[float]) -> Array:
    """Merges to `θ_0 + t · (1/K) Σ_k τ_k`, `t = K c / (1 + (K − 1) c)`, c the mean cosine of two task vectors (Eq. 5).

    Every layer's tensor has a t of its own, also where layers are stacked. The average is uniform, as in the paper. c is clipped
    to 0..1, so that branches which disagree on average give theta0; the cosine with a task vector of zero is 0. Defined for
    two branches and more.
    """
    return moved(parameter.base, _stock(list(task_vectors(parameter)), parameter.stacked))


@partial(jax.jit, static_argnums=1)
def _stock(vectors: list[Array], stacked: int) -> Array:
    axes = tuple(range(stacked, vectors[0].ndim))
    norms = [jnp.sqrt(jnp.sum(vector * vector, axis=axes, keepdims=True)) for vector in vectors]
    pairs = combinations(zip(vectors, norms, strict=True), 2)
    cosines = [_cosine(jnp.sum(a * b, axis=axes, keepdims=True), norm_a * norm_b) for (a, norm_a), (b, norm_b) in pairs]
    count, cosine = len(vectors), jnp.clip(sum(cosines) / len(cosines), 0, 1)
    return count * cosine / (1 + (count - 1) * cosine) * (sum(vectors) / count)


def _cosine(dot: Float[Array, "*l"], norms: Float[Array, "*l"]) -> Float[Array, "*l"]:
    return jnp.where(norms > 0, dot / jnp.where(norms > 0, norms, 1), 0)


MERGERS = {"model_stock": Merger(model_stock, weighted=unweighted, least=2)}
"""Name -> the operator."""
