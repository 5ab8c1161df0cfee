"""The directory of a run: paths of artifacts, how they are written, and leases."""
