"""Orders the executions that a search tries when the configured one does not fit."""

from collections.abc import Iterator, Sequence

from merit_jax.planning.execution import ExecutionConfig

ORDER = (
    "the smallest change of train.batch_size (which changes what is learnt; none first)",
    "the fewest devices on mesh.tensor",
    "the least recomputation, model.remat",
    "the fewest train.micro_batches",
    "the fewest devices on mesh.data",
)
"""Changes from the most to the least avoided: of all executions that fit, the first in this order is the nearest."""


def execution_configs(configured: ExecutionConfig, heads: int, policies: Sequence[str]) -> Iterator[ExecutionConfig]:
    """Yields every valid execution on the same devices with the same `mesh.sequence`, the nearest first.

    Args:
        configured: The execution of the config, valid or not.
        heads: Query heads; `mesh.tensor` divides them.
        policies: Values of `model.remat`, from nothing recomputed to most.
    """
    devices = configured.data * configured.fsdp * configured.tensor
    found = [
        execution
        for tensor in _divisors(devices)
        if heads % tensor == 0 and tensor >= configured.tensor
        for data in _divisors(devices // tensor)
        for batch in _batches(configured.batch_size, devices // tensor)
        for parts in _divisors(batch)
        for remat in policies[policies.index(configured.remat) :]
        if (
            execution := configured._replace(
                data=data,
                fsdp=devices // tensor // data,
                tensor=tensor,
                batch_size=batch,
                micro_batches=parts,
                remat=remat,
            )
        ).obstacle()
        is None
    ]
    return iter(sorted(found, key=lambda execution: _distance(execution, configured, policies)))


def _distance(execution: ExecutionConfig, configured: ExecutionConfig, policies: Sequence[str]) -> tuple[int, ...]:
    """Returns the changes in the order of `ORDER`; smaller is nearer."""
    return (
        abs(execution.batch_size - configured.batch_size),
        execution.tensor,
        policies.index(execution.remat),
        abs(execution.micro_batches - configured.micro_batches),
        abs(execution.data - configured.data),
    )


def _batches(configured: int, shards: int) -> list[int]:
    """Returns the configured batch if the devices divide it, else the multiples of their number next to it."""
    below = configured // shards * shards
    return [configured] if below == configured else [size for size in (below, below + shards) if size]


def _divisors(number: int) -> list[int]:
    return [part for part in range(1, number + 1) if number % part == 0]
