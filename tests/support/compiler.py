"""How XLA compiles for tests, which compile for longer than they compute."""

FAST = " ".join(
    [
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_use_fusion_emitters=false",  # together with the next one: a third less time in a compile-bound test
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
)
"""Flags for XLA_FLAGS."""


def devices(count: int) -> str:
    """The flag for so many virtual devices."""
    return f"--xla_force_host_platform_device_count={count}"
