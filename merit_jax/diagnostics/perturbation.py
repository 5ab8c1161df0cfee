"""Flatness of the loss around a model: its rise under Gaussian weight noise (MERIT §4)."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from merit_jax.core import tree
from merit_jax.core.types import Array, Batch, LossFn, Params
from merit_jax.diagnostics.mean_loss import Loss, mean_loss


class Perturbed(NamedTuple):
    """One model under noise.

    Attributes:
        name: Of the model.
        loss: L(θ), nats per supervised token.
        increases: `L(θ + σ ε) − L(θ)` for every σ and draw.
        mean: Mean increase over the draws, for every σ.
        std: Its standard deviation over the draws (n − 1); NaN for one draw.
        auc: Area under the mean increase from σ = 0 (where it is 0) to the largest σ: less is flatter.
    """

    name: str
    loss: float
    increases: Float[np.ndarray, "sigmas draws"]
    mean: Float[np.ndarray, " sigmas"]
    std: Float[np.ndarray, " sigmas"]
    auc: float


class Perturbation(NamedTuple):
    """Models under the same noise.

    Attributes:
        sigmas: Standard deviations of the noise on every trainable parameter.
        models: The models.
    """

    sigmas: tuple[float, ...]
    models: tuple[Perturbed, ...]


def perturbation(
    loss_fn: LossFn,
    models: Mapping[str, Params],
    batches: Iterable[Batch],
    *,
    sigmas: Sequence[float] = (0.01, 0.05, 0.1),
    draws: int = 5,
    seed: int = 0,
    trainable: Sequence[str] = (".*",),
) -> Perturbation:
    """Measures the rise of the loss under isotropic Gaussian noise on the trainable parameters, `ΔL = L(θ + σ ε) − L(θ)`.

    Draw i is the same ε for every σ and every model, so differences between models are paired.

    Args:
        loss_fn: (params, batch) -> (nll f32[B], tokens f32[B]).
        models: Name -> params, read one at a time.
        batches: Data of the loss, on the devices; gone through anew for every evaluation.
        sigmas: Standard deviations, positive and rising.
        draws: Noise vectors.
        seed: Of the noise.
        trainable: Regular expressions over parameter paths; other leaves get no noise.

    Raises:
        ValueError: A σ is not positive, they do not rise, or there is no draw.
    """
    sigmas = tuple(float(sigma) for sigma in sigmas)
    if not sigmas or sigmas[0] <= 0 or list(sigmas) != sorted(set(sigmas)):
        raise ValueError(f"diagnostics.sigmas = {sigmas}; expected positive standard deviations, rising")
    if draws < 1:
        raise ValueError(f"diagnostics.draws = {draws}; expected at least one draw of noise")
    loss = mean_loss(loss_fn, batches)
    return Perturbation(
        sigmas, tuple(_perturbed(loss, name, models[name], sigmas, draws, seed, trainable) for name in models)
    )


def noisy(params: Params, sigma: float, seed: int, draw: int, trainable: Sequence[str] = (".*",)) -> Params:
    """Returns `θ + σ ε` with `ε ~ N(0, I)` on the trainable leaves; ε depends on seed, draw and path names alone."""
    leaves, frozen = tree.split(params, trainable)
    key = jax.random.fold_in(jax.random.key(seed), draw)
    moved = {
        path: _add_noise(leaf, jax.random.fold_in(key, zlib.crc32(path.encode())), sigma)
        for path, leaf in leaves.items()
    }
    return tree.join(moved, frozen)


def _perturbed(
    loss: Loss, name: str, params: Params, sigmas: Sequence[float], draws: int, seed: int, trainable: Sequence[str]
) -> Perturbed:
    here = loss(params)
    rises = np.array(
        [[loss(noisy(params, sigma, seed, draw, trainable)) - here for draw in range(draws)] for sigma in sigmas]
    )
    mean = rises.mean(axis=1)
    std = rises.std(axis=1, ddof=1) if draws > 1 else np.full(len(sigmas), np.nan)
    return Perturbed(name, here, rises, mean, std, float(np.trapezoid([0, *mean], [0, *sigmas])))


@jax.jit
def _add_noise(leaf: Array, key: Array, sigma: float | Array) -> Array:
    noise = sigma * jax.random.normal(key, leaf.shape, jnp.float32)
    return (leaf.astype(jnp.float32) + noise).astype(leaf.dtype)
