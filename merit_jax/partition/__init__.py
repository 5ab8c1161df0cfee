"""Assigns datasets to branches (MERIT Alg. 1, step 3).

A partitioner is a function in a file here, with an entry in `PARTITIONERS`.
"""

from merit_jax.core.registry import lookup
from merit_jax.partition import alike, conflict_induced, joint, kmeans, median_split, random
from merit_jax.partition.branches import ASSIGNMENTS, Partition, divided, from_groups, from_shares, make_partition
from merit_jax.partition.partitioner import Partitioner

PARTITIONERS: dict[str, Partitioner] = {
    "median_split": Partitioner(median_split.median_split, uses_gradients=True, soft=median_split.soft_median_split),
    "joint": Partitioner(joint.joint),
    "random": Partitioner(random.random, soft=random.soft_random),
    "alike": Partitioner(alike.alike, uses_gradients=True),
    "kmeans": Partitioner(kmeans.kmeans, uses_gradients=True),
    "conflict_induced": Partitioner(conflict_induced.conflict_induced, uses_gradients=True),
}
"""Name of a way to group datasets -> the partitioner: `PARTITIONERS[name](scores, samples, **options) -> groups`."""


def uses_gradients(method: str) -> bool:
    """Returns whether a value of `partition.method` looks at the datasets' gradients.

    Raises:
        ValueError: There is no such method.
    """
    found = lookup({**PARTITIONERS, **ASSIGNMENTS}, method, "partition.method")
    return isinstance(found, Partitioner) and found.uses_gradients


__all__ = [
    "ASSIGNMENTS",
    "PARTITIONERS",
    "Partition",
    "Partitioner",
    "divided",
    "from_groups",
    "from_shares",
    "make_partition",
    "uses_gradients",
]
