"""Assigns datasets to branches (MERIT Alg. 1, step 3)."""
