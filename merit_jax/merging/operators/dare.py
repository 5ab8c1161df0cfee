"""DARE: Yu et al., Language Models are Super Mario: Absorbing Abilities from Homologous Models, ICML 2024."""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from merit_jax.core.seeds import fold
from merit_jax.core.types import Array
from merit_jax.merging.merger import Merger
from merit_jax.merging.operators.task_vectors import Parameter, moved, task_vectors, total
from merit_jax.merging.operators.ties import consensus, weighted


def dare_linear(
    parameter: Parameter,
    weights: Sequence[float],
    *,
    scale: int | float = 1.0,
    drop_rate: int | float = 0.9,
    seed: int = 0,
) -> Array:
    """Merges to `θ_0 + λ Σ_k w_k τ̃_k`; in τ̃_k an entry is 0 with probability p, else τ_k / (1 − p) (Eq. 2).

    In expectation this is the weighted average. One branch is dropped from and rescaled in the same way.

    Args:
        scale: λ.
        drop_rate: p (the paper finds 0.9 harmless for fine-tuned language models).
        seed: The dropped entries depend on the seed, the parameter's name and the branch's number, nothing else.
    """
    dropped = zip(weights, _dropped(parameter, drop_rate, seed), strict=True)
    return moved(parameter.base, total(np.float32(weight) * vector for weight, vector in dropped), scale)


def dare_ties(
    parameter: Parameter,
    weights: Sequence[float],
    *,
    scale: int | float = 1.0,
    drop_rate: int | float = 0.9,
    seed: int = 0,
    weighted_election: bool = False,
    weighted_mean: bool = False,
) -> Array:
    """Merges as TIES does, with the random drop of DARE in the place of its trim.

    Args:
        scale: λ.
        drop_rate: p.
        seed: See `dare_linear`.
        weighted_election: See `merit_jax.merging.operators.ties.ties`.
        weighted_mean: See `merit_jax.merging.operators.ties.ties`.
    """
    dropped = _dropped(parameter, drop_rate, seed)
    merged = consensus(dropped, weights, weighted_election=weighted_election, weighted_mean=weighted_mean)
    return moved(parameter.base, merged, scale)


def _dropped(parameter: Parameter, drop_rate: int | float, seed: int) -> Iterator[Array]:
    for k, vector in enumerate(task_vectors(parameter)):
        key = jax.random.key(fold(seed, "dare", parameter.path, str(k)))
        yield _drop(vector, key, np.float32(drop_rate))


@jax.jit
def _drop(vector: Array, key: jax.Array, drop_rate: Array) -> Array:
    kept = jax.random.uniform(key, vector.shape) >= drop_rate
    return jnp.where(kept, vector / (1 - drop_rate), 0)


MERGERS = {"dare_linear": Merger(dare_linear), "dare_ties": Merger(dare_ties, weighted=weighted)}
"""Name -> the operator."""
