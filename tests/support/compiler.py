"""How XLA compiles for tests, which compile for longer than they compute."""

from importlib.metadata import version


def fast(jaxlib: str) -> str:
    """Flags for XLA_FLAGS that a version of jaxlib knows: it ends the process at one that it does not."""
    flags = [
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
    if tuple(map(int, jaxlib.split(".")[:2])) < (0, 11):
        flags.append("--xla_cpu_use_fusion_emitters=false")  # with the one before: a third less in a compile-bound test
    return " ".join(flags)


FAST = fast(version("jaxlib"))
"""Flags for XLA_FLAGS."""


def devices(count: int) -> str:
    """The flag for so many virtual devices."""
    return f"--xla_force_host_platform_device_count={count}"
