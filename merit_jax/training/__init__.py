"""One branch: the optimizer, the step, the loop and its checkpoints (MERIT Alg. 1, step 4)."""
