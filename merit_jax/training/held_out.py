"""The loss on held-out examples while a branch trains, and early stopping by it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from merit_jax.core.types import Leaves


class HeldOutLoss(NamedTuple):
    """The loss on held-out examples, in nats per supervised token.

    Attributes:
        loss: Of all of them.
        by_dataset: Name of a dataset -> of its examples.
    """

    loss: float
    by_dataset: Mapping[str, float]


class HeldOut(NamedTuple):
    """Times at which the loss on held-out examples is computed, and the way.

    Attributes:
        measure: The leaves to be evaluated -> their loss, the same on every process; None: it is never computed.
        every: Steps between evaluations; the states before the first step and after the last one are evaluated too.
        patience: Evaluations without a new lowest loss after which training stops; 0: it never does.
    """

    measure: Callable[[Leaves], HeldOutLoss] | None = None
    every: int = 1
    patience: int = 0

    def due(self, step: int, *, last: bool) -> bool:
        """Returns whether the state after so many steps is evaluated.

        Examples:
            >>> held_out = HeldOut(lambda leaves: HeldOutLoss(1.0, {}), every=4)
            >>> [step for step in range(11) if held_out.due(step, last=step == 10)]
            [0, 4, 8, 10]
        """
        return self.measure is not None and (last or step % self.every == 0)


class Best(NamedTuple):
    """The evaluation with the lowest loss.

    Attributes:
        loss: The loss.
        step: Optimizer steps before it.
        tokens: Supervised tokens trained on before it.
        waited: Evaluations since.
    """

    loss: float
    step: int
    tokens: int
    waited: int = 0


class EarlyStopping:
    """The best state of a branch until now, in memory of its own, and whether training is over.

    Args:
        patience: Evaluations without a new lowest loss after which it is; 0: no state is kept, and it never is.
        best: The best evaluation of a run that is resumed.
        leaves: Its leaves.

    Examples:
        >>> early = EarlyStopping(patience=2)
        >>> for step, loss in enumerate([2.0, 1.0, 1.5, 1.0], start=1):
        ...     early.observe(loss, step, 10 * step, {})
        >>> early.best, early.over
        (Best(loss=1.0, step=2, tokens=20, waited=2), True)
    """

    def __init__(self, patience: int, best: Mapping[str, Any] | None = None, leaves: Leaves | None = None) -> None:
        self._patience = patience
        self.best, self.leaves = (None if best is None else Best(**best)), leaves

    def observe(self, loss: float, step: int, tokens: int, leaves: Leaves) -> None:
        """Takes an evaluation; the state before the first step is none to be kept, for it has learned nothing."""
        if not self._patience or not step:
            return
        if self.best is None or loss < self.best.loss:
            self.best, self.leaves = Best(loss, step, tokens), jax.tree.map(jnp.copy, leaves)
        else:
            self.best = self.best._replace(waited=self.best.waited + 1)

    @property
    def over(self) -> bool:
        """True if so many evaluations have passed without a lower loss."""
        return self.best is not None and self.best.waited >= self._patience

    @property
    def record(self) -> dict[str, Any] | None:
        """The best evaluation as JSON values."""
        return None if self.best is None else self.best._asdict()
