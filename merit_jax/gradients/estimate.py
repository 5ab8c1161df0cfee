"""Dataset-level gradients at theta0 (MERIT Alg. 1, step 1)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float

from merit_jax.core import tree
from merit_jax.core.registry import lookup
from merit_jax.core.sharding import to_host
from merit_jax.core.types import Array, Batch, Leaves, LossFn, Params
from merit_jax.gradients.compression import make_compressor
from merit_jax.gradients.compressor import Compressor, leaf_shardings


def dataset_gradients(
    loss_fn: LossFn,
    params: Params,
    batches: Sequence[Iterable[Batch]],
    *,
    names: Sequence[str] | None = None,
    trainable: Sequence[str] = (".*",),
    average: str = "example",
    reduction: str = "countsketch",
    stride: int = 5,
    width: int = 2**18,
    datasets_per_step: int = 1,
) -> Float[np.ndarray, "T d"]:
    """Computes one compressed mean gradient per dataset, all at the same parameters.

    `g_t = (1/n) Σ_i ∇ (nll_i / tokens_i)` over the calibration examples of dataset t (`average="example"`), or
    `g_t = ∇ Σ_i nll_i / Σ_i tokens_i` (`"token"`), in float32, over the trainable leaves.

    Args:
        loss_fn: (params, batch) -> (nll f32[B], tokens f32[B]), one example per row; rows without tokens are ignored.
        params: theta0.
        batches: Per dataset, its calibration examples in batches of fixed shapes; each shape is compiled once.
        names: Dataset names for error messages.
        trainable: Regular expressions over parameter paths; other leaves have no part in g_t.
        average: "example" or "token".
        reduction: "countsketch" hashes all entries into `width` buckets; "stride" keeps one entry in every `stride`.
        stride: s of the paper (5 keeps 20 %).
        width: Coordinates of the sketch.
        datasets_per_step: Datasets that are differentiated together, each with its own accumulator.

    Returns:
        f32[T, d], row t for `batches[t]`.

    Raises:
        ValueError: A gradient is zero or not finite (the dataset is named), or an option is unknown.

    Examples:
        A loss that is linear in a weight for each token id, so that a gradient is the mean share of each id:

        >>> def loss(params, batch):
        ...     return params["w"][batch.tokens].sum(axis=1), batch.weights.sum(axis=1)
        >>> ids = np.array([[0, 1], [1, 1]], np.int32)
        >>> batch = Batch(tokens=ids, targets=ids, weights=np.ones((2, 2), np.float32), positions=ids, segments=ids)
        >>> dataset_gradients(loss, {"w": np.zeros(2, np.float32)}, [[batch]], reduction="stride", stride=1).tolist()
        [[0.25, 0.75]]
    """
    names = list(names) if names is not None else [str(index) for index in range(len(batches))]
    reduce = make_compressor(reduction, stride=stride, width=width)
    rows = gradient_rows(
        loss_fn,
        params,
        batches,
        trainable=trainable,
        average=average,
        reduce=reduce,
        datasets_per_step=datasets_per_step,
    )
    return np.stack([checked(row, name) for row, name in zip(rows, names, strict=True)])


def gradient_rows(
    loss_fn: LossFn,
    params: Params,
    batches: Sequence[Iterable[Batch]],
    *,
    trainable: Sequence[str],
    average: str,
    reduce: Compressor,
    datasets_per_step: int = 1,
    place: Callable[[Batch], Batch] = lambda batch: batch,
) -> Iterator[Float[np.ndarray, " d"]]:
    """Computes the rows of `dataset_gradients`, one at a time, so that each can be stored before the next is computed.

    Args:
        place: Puts a stacked batch, leaves [datasets, rows, ...], on the devices.
    """
    leaves, frozen = tree.split(params, trainable)
    layout = leaf_shardings(leaves)
    add = _accumulator(
        loss_fn, lookup(AVERAGES, average, "gradients.average"), datasets_per_step, tuple(layout.items())
    )
    finish = _reducer(reduce, tuple(layout.items()))
    sums = {path: jnp.zeros((datasets_per_step, *like.shape), device=_stacked(like)) for path, like in layout.items()}
    for start in range(0, len(batches), datasets_per_step):
        block, counts = batches[start : start + datasets_per_step], jnp.zeros(datasets_per_step, jnp.float32)
        for batch in _stacked_batches(block, datasets_per_step):
            sums, counts = add(sums, counts, leaves, frozen, place(batch))
        kept = {path: to_host(part) for path, part in finish(sums, counts).items()}
        yield from (reduce.row({path: part[i] for path, part in kept.items()}, layout) for i in range(len(block)))


class DatasetsPerStep(NamedTuple):
    """A number of datasets that are differentiated together.

    Attributes:
        datasets: The number.
        reason: Its reason, in words.
    """

    datasets: int
    reason: str


def fit_datasets_per_step(
    loss_fn: LossFn,
    params: Params,
    batch: Batch,
    *,
    trainable: Sequence[str],
    average: str,
    budget: int,
    most: int,
    place: Callable[[Batch], Batch] = lambda batch: batch,
) -> DatasetsPerStep:
    """Finds the number of datasets that a budget of memory allows.

    Each takes its float32 sums and, in the compiled step, its gradient and its activations.

    Args:
        loss_fn: As in `dataset_gradients`.
        params: theta0.
        batch: One of the largest shape that will come.
        trainable: Regular expressions over parameter paths.
        average: "example" or "token".
        budget: Bytes on each device.
        most: Datasets there are.
        place: Puts a stacked batch, leaves [1, rows, ...], on the devices.

    Raises:
        ValueError: The backend does not report a program's memory.
    """
    leaves, frozen = tree.split(params, trainable)
    layout = leaf_shardings(leaves)
    add = _accumulator(loss_fn, lookup(AVERAGES, average, "gradients.average"), 1, tuple(layout.items()))
    sums = {
        path: jax.ShapeDtypeStruct((1, *like.shape), jnp.float32, sharding=_stacked(like))
        for path, like in layout.items()
    }
    one = place(jax.tree.map(lambda x: np.asarray(x)[None], batch))
    memory = add.lower(sums, jax.ShapeDtypeStruct((1,), jnp.float32), leaves, frozen, one).compile().memory_analysis()
    if memory is None:
        raise ValueError("this backend does not report a program's memory; set gradients.datasets_per_step to a number")
    each = memory.output_size_in_bytes + memory.temp_size_in_bytes
    count = min(max(1, budget // each), most)
    return DatasetsPerStep(count, f"one takes {each:,} bytes of a device, all may take {budget:,}")


def checked(row: Float[np.ndarray, " d"], name: str) -> Float[np.ndarray, " d"]:
    """Returns the gradient, or raises a ValueError that names the dataset when it has no direction."""
    if not np.isfinite(row).all():
        raise ValueError(
            f"dataset {name!r}: its gradient is not finite; look for broken rows, or compute in float32 (model.dtype)"
        )
    if not row.any():
        raise ValueError(
            f"dataset {name!r}: its gradient is zero, so its cosine with other datasets is undefined; check that its rows have "
            "supervised tokens and that train.trainable names parameters the loss depends on"
        )
    return row


AVERAGES: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "example": lambda nll, tokens: ((nll / jnp.maximum(tokens, 1)).sum(), (tokens > 0).sum().astype(jnp.float32)),
    "token": lambda nll, tokens: (nll.sum(), tokens.sum()),
}
"""(nll f32[B], tokens f32[B]) -> (summed loss, its divisor)."""


@lru_cache(maxsize=4)
def _accumulator(
    loss_fn: LossFn,
    totals: Callable[[Array, Array], tuple[Array, Array]],
    width: int,
    layout: tuple[tuple[str, jax.ShapeDtypeStruct], ...],
) -> jax.stages.Wrapped:
    """A compiled `(sums, counts, leaves, frozen, batch) -> (sums, counts)` over a stack of `width` datasets.

    Sums are float32, sharded as their leaves, and updated in place. While a dataset's count is zero its sums are ignored, so
    buffers are reused without zeroing.
    """

    def loss(leaves: Leaves, frozen: Leaves, batch: Batch) -> tuple[Array, Array]:
        return totals(*loss_fn(tree.join(leaves, frozen), batch))

    def one(sums: Leaves, count: Array, leaves: Leaves, frozen: Leaves, batch: Batch) -> tuple[Leaves, Array]:
        gradient, more = jax.grad(loss, has_aux=True)(leaves, frozen, batch)
        old = jax.tree.map(lambda total: jnp.where(count > 0, total, 0), sums)
        return jax.tree.map(lambda total, g: total + g.astype(jnp.float32), old, gradient), count + more

    def alone(sums: Leaves, counts: Array, leaves: Leaves, frozen: Leaves, batch: Batch) -> tuple[Leaves, Array]:
        """Applies `one` to a stack of one: under vmap the loss could not skip chunks without supervised tokens."""
        own, count, rows = jax.tree.map(lambda x: x[0], (sums, counts, batch))
        return jax.tree.map(lambda x: x[None], one(own, count, leaves, frozen, rows))

    each = alone if width == 1 else jax.vmap(one, in_axes=(0, 0, None, None, 0))
    return jax.jit(each, donate_argnums=0, out_shardings=({path: _stacked(like) for path, like in layout}, None))


@lru_cache(maxsize=4)
def _reducer(reduce: Compressor, layout: tuple[tuple[str, jax.ShapeDtypeStruct], ...]) -> Callable:
    """A compiled `(sums, counts) -> kept coordinates` of the means of a stack of datasets; the sums stay as they are."""

    def one(sums: Leaves, count: Array) -> Leaves:
        return jax.tree.map(lambda part: part / count, reduce.device_part(sums, dict(layout)))

    return jax.jit(jax.vmap(one))


def _stacked(like: jax.ShapeDtypeStruct) -> NamedSharding | None:
    """Sharding of a stack of leaves: each as the leaf."""
    return like.sharding and NamedSharding(like.sharding.mesh, PartitionSpec(None, *like.sharding.spec))


def _stacked_batches(block: Sequence[Iterable[Batch]], width: int) -> Iterator[Batch]:
    """Batches of several datasets with one shape, stacked [width, rows, ...]; a dataset that has none waits on empty rows.

    Each dataset's batches are read one at a time; where they come in order of their shapes, as few as can be wait.
    """
    queues = [iter(batches) for batches in block]
    heads = [next(queue, None) for queue in queues]
    while any(head is not None for head in heads):
        shape = min(_shape(head) for head in heads if head is not None)
        taken = [head if head is not None and _shape(head) == shape else None for head in heads]
        heads = [
            head if mine is None else next(queue, None) for head, mine, queue in zip(heads, taken, queues, strict=True)
        ]
        empty = jax.tree.map(np.zeros_like, next(batch for batch in taken if batch is not None))
        taken += [None] * (width - len(taken))
        yield jax.tree.map(lambda *rows: np.stack(rows), *[empty if batch is None else batch for batch in taken])


def _shape(batch: Batch) -> tuple[int, ...]:
    return tuple(size for leaf in jax.tree.leaves(batch) for size in np.shape(leaf))
