"""Importance and attention entropy of heads, and their union, HIES (Choi et al., arXiv:2510.13832)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from merit_jax.core.heads import ByHead, HasHeads
from merit_jax.core.loss import next_token_loss
from merit_jax.core.types import Array, Batch, Params


class HeadSums(NamedTuple):
    """Sums over calibration examples, which add up over datasets.

    Attributes:
        examples: Examples with supervised tokens, a number.
        importance: Part -> [layers, heads], `Σ_x |∂L_x/∂m_h|`, with an example's mean loss L_x over supervised tokens and the
            gate m_h of a head's output.
        measured: Part -> [layers], examples that have queries of the part.
        entropy: Part -> [layers, heads], sum over these examples of the mean attention entropy of their queries.
    """

    examples: Any
    importance: Mapping[str, Any]
    measured: Mapping[str, Any]
    entropy: Mapping[str, Any]

    def __add__(self, other: "HeadSums") -> "HeadSums":  # type: ignore[override]
        """Adds the sums of other examples."""
        return jax.tree.map(lambda mine, theirs: mine + theirs, self, other)


class HeadScores(NamedTuple):
    """Means over calibration examples.

    Attributes:
        importance: Part -> HIS, `E_x |∂L/∂m_h|`, in nats.
        entropy: Part -> AE, attention entropy by the logarithm of the number of keys, in [0, 1].
    """

    importance: ByHead
    entropy: ByHead


Measure = Callable[[Params, Batch, Mapping[str, Any]], HeadSums]
"""(params, batch of one example to a row, part -> gates [layers, heads]) -> its sums, on the devices."""


def head_measure(model: HasHeads, parts: Sequence[str], chunk: int = 64) -> Measure:
    """Makes the function that measures the heads of a model on a batch; jitted for each shape of a batch.

    The loss is differentiated by gates alone, one for every row: layers x rows x heads numbers, no gradient of a parameter.

    Args:
        model: Its functions.
        parts: Parts whose heads are measured.
        chunk: Tokens of each row whose logits exist at one time.

    Raises:
        ValueError: A part has no heads in this model.
    """
    for part in parts:
        if part not in model.heads:
            raise ValueError(f"this model has no heads in {part!r}; known: {', '.join(model.heads)}")
    counts = {part: model.heads[part] for part in parts}

    def mean_losses(gates: Mapping[str, Array], params: Params, batch: Batch) -> Array:
        nll, tokens = next_token_loss(model.gated(gates), chunk)(params, batch)
        return (nll / jnp.maximum(tokens, 1)).sum()

    @jax.jit
    def measure(params: Params, batch: Batch, gates: Mapping[str, Array]) -> HeadSums:
        rows, shared = len(batch.tokens), {part: jnp.asarray(gates[part])[:, None] for part in parts}
        of_rows = {part: jnp.broadcast_to(shared[part], (c.layers, rows, c.heads)) for part, c in counts.items()}
        supervised = batch.weights.sum(axis=-1) > 0
        slopes = jax.grad(mean_losses)(of_rows, params, batch)
        found = model.gated(of_rows).head_entropies(params, batch)[1]
        nothing = {
            part: (jnp.zeros((c.layers, rows, c.heads)), jnp.zeros((c.layers, rows))) for part, c in counts.items()
        }
        entropies = {part: found.get(part, nothing[part]) for part in parts}
        read = {part: supervised & (queries > 0) for part, (_, queries) in entropies.items()}
        return HeadSums(
            supervised.sum(),
            {part: _sum_of_rows(jnp.abs(slope), supervised) for part, slope in slopes.items()},
            {part: rows.sum(axis=-1) for part, rows in read.items()},
            {part: _sum_of_rows(mean, read[part]) for part, (mean, _) in entropies.items()},
        )

    return measure


def head_sums(
    measure: Measure,
    params: Params,
    batches: Iterable[Batch],
    gates: ByHead,
    place: Callable[[Batch], Batch] = lambda batch: batch,
) -> HeadSums:
    """Measures the heads of a model on examples.

    Args:
        measure: Of the model.
        params: Its parameters, on the devices.
        batches: Batches of fixed shapes, one example to a row; rows without supervised tokens count for nothing.
        gates: Those at which it is measured: 1, or 0 for heads that are pruned already.
        place: Puts a batch on the devices.

    Raises:
        ValueError: There are no batches.
    """
    total, wide = None, {part: np.asarray(values, np.float32) for part, values in gates.items()}
    for batch in batches:
        sums = jax.device_get(measure(params, place(batch), wide))
        found = jax.tree.map(lambda x: np.asarray(x, np.float64), sums)
        total = found if total is None else total + found
    if total is None:
        raise ValueError("there are no calibration examples: heads cannot be scored")
    return total


def _sum_of_rows(values: Float[Array, "layers b heads"], real: Any) -> Float[Array, "layers heads"]:
    return jnp.where(real[..., None], values, 0).sum(axis=1)


def mean_scores(sums: HeadSums) -> HeadScores:
    """Returns the scores of sums.

    Raises:
        ValueError: There are no examples with supervised tokens, or none that a part reads.
    """
    if not sums.examples:
        raise ValueError("no calibration example has supervised tokens: heads cannot be scored")
    for part, measured in sums.measured.items():
        if not measured.all():
            needed = "an image" if part == "vision" else "two tokens or more"
            raise ValueError(
                f"no calibration example has {needed}: the entropy of heads of {part!r} cannot be measured"
            )
    importance = {part: np.asarray(total) / sums.examples for part, total in sums.importance.items()}
    entropy = {part: np.asarray(total) / sums.measured[part][:, None] for part, total in sums.entropy.items()}
    return HeadScores(importance, entropy)


def normalised(values: ByHead) -> ByHead:
    """Returns values moved and scaled to [0, 1] over all heads of the model; zeros where all are equal.

    Examples:
        >>> found = normalised({"decoder": np.array([[2.0, 4.0]]), "vision": np.array([[3.0]])})
        >>> {part: values.tolist() for part, values in found.items()}
        {'decoder': [[0.0, 1.0]], 'vision': [[0.5]]}
    """
    every = np.concatenate([np.ravel(part) for part in values.values()])
    low, width = every.min(), np.ptp(every)
    return {part: (np.asarray(x, np.float64) - low) / (width if width else 1) for part, x in values.items()}


def hies(scores: HeadScores, alpha: float) -> ByHead:
    """Returns `α HIS + (1 - α)(1 - AE)`, both normalised over all heads of the model; low scores are pruned first.

    Args:
        scores: HIS and AE.
        alpha: Weight of importance.

    Raises:
        ValueError: alpha is not in [0, 1], or a score is not finite.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha = {alpha:g}: expected 0 (entropy alone) to 1 (importance alone)")
    for name, values in scores._asdict().items():
        if not all(np.isfinite(part).all() for part in values.values()):
            raise ValueError(
                f"the {name} of a head is not finite: the model gives no finite loss on the calibration examples"
            )
    importance, entropy = normalised(scores.importance), normalised(scores.entropy)
    return {part: alpha * importance[part] + (1 - alpha) * (1 - entropy[part]) for part in importance}
