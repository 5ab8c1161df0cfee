"""Shape and type checks of every public signature, and eight virtual devices, for the whole suite."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

from jaxtyping import install_import_hook

install_import_hook(["merit_jax", "models"], "beartype.beartype")
