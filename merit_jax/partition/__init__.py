"""Assigns datasets to branches (MERIT Alg. 1, step 3)."""

from merit_jax.partition.median_split import PARTITIONERS

__all__ = ["PARTITIONERS"]
