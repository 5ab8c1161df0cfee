"""The outer step of rounds: Nesterov momentum on what a round's branches have changed, as in DiLoCo (arXiv:2311.08105)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Float

from merit_jax.checkpoints.writer import write_streamed
from merit_jax.core.leaves import LeafReader


class OuterStep(NamedTuple):
    """The outer optimizer's options.

    Attributes:
        rate: Outer learning rate η; 1 without momentum takes the merged model itself.
        momentum: Outer momentum μ, in [0, 1).
    """

    rate: float = 1.0
    momentum: float = 0.0

    @property
    def averages(self) -> bool:
        """True of the step that leads to the merged model itself."""
        return self == OuterStep()

    def velocity(
        self, start: Float[np.ndarray, "*s"], merged: Float[np.ndarray, "*s"], before: Float[np.ndarray, "*s"] | None
    ) -> Float[np.ndarray, "*s"]:
        """Returns `v_t = μ v_(t-1) + Δ_t` with the outer gradient `Δ_t = θ_(t-1) − θ̄_t` (Douillard et al. 2023, Alg. 1).

        Args:
            start: θ_(t-1), a parameter at the start of the round.
            merged: θ̄_t, the same after the merge of the branches.
            before: v_(t-1); None in the first round.

        Returns:
            The velocity, float32.

        Examples:
            >>> start, merged = np.array([2.0, 2.0], np.float32), np.array([1.0, 4.0], np.float32)
            >>> OuterStep(momentum=0.5).velocity(start, merged, np.array([2.0, 0.0], np.float32)).tolist()
            [2.0, -2.0]
        """
        gradient = start.astype(np.float32) - merged.astype(np.float32)
        return gradient if before is None else np.float32(self.momentum) * before + gradient

    def apply(
        self, start: Float[np.ndarray, "*s"], merged: Float[np.ndarray, "*s"], before: Float[np.ndarray, "*s"] | None
    ) -> Float[np.ndarray, "*s"]:
        """Returns the start of the next round, `θ_t = θ_(t-1) − η (Δ_t + μ v_t)`: Nesterov's step, in the type of `start`.

        Args:
            start: θ_(t-1).
            merged: θ̄_t.
            before: v_(t-1); None in the first round.

        Examples:
            >>> start, merged = np.array([2.0, 2.0], np.float32), np.array([1.0, 4.0], np.float32)
            >>> OuterStep(rate=0.5).apply(start, merged, None).tolist()
            [1.5, 3.0]
            >>> OuterStep(rate=1.0, momentum=0.5).apply(start, merged, None).tolist()
            [0.5, 5.0]
        """
        gradient = start.astype(np.float32) - merged.astype(np.float32)
        velocity = self.velocity(start, merged, before)
        step = np.float32(self.rate) * (gradient + np.float32(self.momentum) * velocity)
        return (start.astype(np.float32) - step).astype(start.dtype)


def step_streamed(
    step: OuterStep,
    start: LeafReader,
    merged: LeafReader,
    trained: LeafReader,
    before: LeafReader | None,
    out: epath.Path,
    velocity: epath.Path,
) -> None:
    """Writes the next start and, with momentum, the velocity, one parameter at a time.

    Args:
        step: The outer step.
        start: All parameters at the start of the round.
        merged: All parameters after the merge.
        trained: Has the paths of the parameters that branches train; all others stay, and so do integers.
        before: The velocity of the round before; None for zeros.
        out: Directory for the parameters, an Orbax tree.
        velocity: Directory for the velocity, likewise; not written without momentum.

    Raises:
        ValueError: A parameter of the next start is not finite.
    """
    moved = {
        path: jax.ShapeDtypeStruct(spec.shape, np.float32)
        for path, spec in trained.paths().items()
        if jnp.issubdtype(spec.dtype, jnp.inexact)
    }

    def known(path: str) -> np.ndarray | None:
        return None if before is None else before.read(path)

    def value(path: str) -> np.ndarray:
        if path not in moved:
            return merged.read(path)
        with np.errstate(over="ignore", invalid="ignore"):
            leaf = step.apply(start.read(path), merged.read(path), known(path))
        if not np.isfinite(leaf.astype(np.float32)).all():
            raise ValueError(f"{path}: the outer step leads to values that are not finite; lower rounds.outer_rate")
        return leaf

    if step.momentum:
        write_streamed(velocity, moved, lambda path: step.velocity(start.read(path), merged.read(path), known(path)))
    write_streamed(out, start.paths(), value)
