"""One gradient per dataset at theta0, compressed and stored (MERIT Alg. 1, step 1)."""
