"""Small models for the tests of merge operators: a stack of matrices, one matrix, and three kinds of vector."""

import jax
import numpy as np

from merit_jax.merging import MERGERS
from merit_jax.merging.statistics import INPUT_GRAMS

WEIGHTS = (0.5, 0.3, 0.2)
LAYERS = 2
STACKED = ("stack/kernel", "norm/scale", "layers/bias")
"""Parameters that stack the tensors of `LAYERS` layers."""


def theta0() -> dict:
    rng = np.random.default_rng(0)
    shapes = {"stack": {"kernel": (LAYERS, 8, 6)}, "head": {"kernel": (5, 9)}, "embed": {"embedding": (7, 4)}}
    shapes |= {"norm": {"scale": (LAYERS, 6)}, "layers": {"bias": (LAYERS, 5)}, "bias": {"bias": (6,)}}
    return jax.tree.map(lambda s: rng.normal(size=s).astype(np.float32), shapes, is_leaf=lambda s: isinstance(s, tuple))


def branch(k: int, size: float = 0.1) -> dict:
    """theta0 plus noise of its own and noise that all branches share."""
    own, shared = np.random.default_rng(k + 1), np.random.default_rng(100)

    def near(leaf: np.ndarray) -> np.ndarray:
        noise = own.normal(size=leaf.shape) + shared.normal(size=leaf.shape)
        return (leaf + size * noise).astype(np.float32)

    return jax.tree.map(near, theta0())


def branches(count: int = 3) -> list[dict]:
    return [branch(k) for k in range(count)]


def kernel(matrix) -> dict:
    """A model of one matrix, or of one stack of matrices."""
    return {"a": {"kernel": np.asarray(matrix, np.float32)}}


def statistics(name: str, count: int = 3) -> list[dict]:
    """What an operator needs of each branch besides its parameters: nothing, Gram matrices of inputs, or positive numbers."""
    kind = MERGERS[name].statistic
    if kind is None:
        return []
    return input_grams(count) if kind == INPUT_GRAMS else fishers(count)


def input_grams(count: int = 3, rows: int = 20) -> list[dict]:
    """Mean Gram matrices of some inputs of each kernel, which differ in scale and share a mean."""
    rngs = [np.random.default_rng(80 + k) for k in range(count)]

    def of(rng: np.random.Generator, leaf: np.ndarray) -> np.ndarray:
        inputs = 0.5 + rng.normal(size=(*leaf.shape[:-2], rows, leaf.shape[-2])) * 2.0 ** rng.integers(
            -1, 2, leaf.shape[-2]
        )
        return (inputs.swapaxes(-1, -2) @ inputs / rows).astype(np.float32)

    kernels = {name: {"kernel": theta0()[name]["kernel"]} for name in ("stack", "head")}
    return [jax.tree.map(lambda leaf, rng=rng: of(rng, leaf), kernels) for rng in rngs]


def fishers(count: int = 3) -> list[dict]:
    """Positive, spread over two orders of magnitude."""
    rngs = [np.random.default_rng(50 + k) for k in range(count)]
    return [
        jax.tree.map(lambda leaf, rng=rng: (10 ** rng.uniform(-1, 1, leaf.shape)).astype(np.float32), theta0())
        for rng in rngs
    ]
