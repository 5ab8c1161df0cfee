"""The nearest setting that fits, where the one that was asked for does not."""

from collections.abc import Iterator, Sequence

from merit_jax.planning.execution import ExecutionConfig

ORDER = (
    "the smallest change of train.batch_size (which changes what is learnt; none first)",
    "the fewest devices on mesh.tensor",
    "the least recomputation, model.remat",
    "the fewest train.micro_batches",
    "the fewest devices on mesh.data",
)
"""What is given up first to last: of all settings that fit, the first in this order is the nearest."""


def execution_configs(asked: ExecutionConfig, heads: int, policies: Sequence[str]) -> Iterator[ExecutionConfig]:
    """Every setting on the same devices that a step can be laid out in, the nearest first.

    Args:
        asked: The setting of the config, whether it can be laid out or not.
        heads: Query heads; `mesh.tensor` divides them.
        policies: What `model.remat` can be, from nothing recomputed to most.
    """
    devices = asked.data * asked.fsdp * asked.tensor
    found = [
        setting
        for tensor in _divisors(devices)
        if heads % tensor == 0 and tensor >= asked.tensor
        for data in _divisors(devices // tensor)
        for batch in _batches(asked.batch_size, devices // tensor)
        for parts in _divisors(batch)
        for remat in policies[policies.index(asked.remat) :]
        if (setting := ExecutionConfig(data, devices // tensor // data, tensor, batch, parts, remat)).obstacle() is None
    ]
    return iter(sorted(found, key=lambda setting: _distance(setting, asked, policies)))


def _distance(setting: ExecutionConfig, asked: ExecutionConfig, policies: Sequence[str]) -> tuple[int, ...]:
    """Smaller is nearer, in the order of `ORDER`."""
    return (
        abs(setting.batch_size - asked.batch_size),
        setting.tensor,
        policies.index(setting.remat),
        abs(setting.micro_batches - asked.micro_batches),
        abs(setting.data - asked.data),
    )


def _batches(asked: int, shards: int) -> list[int]:
    """The batch asked for, if the devices divide it, else the multiples of their number on both sides of it."""
    below = asked // shards * shards
    return [asked] if below == asked else [size for size in (below, below + shards) if size]


def _divisors(number: int) -> list[int]:
    return [part for part in range(1, number + 1) if number % part == 0]
