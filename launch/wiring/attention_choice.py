"""The implementation of attention for a kind of device."""

PLATFORMS = {"splash": "tpu", "cudnn": "gpu"}
"""Implementation -> the only platform that has it."""


def attention_for(name: str, platform: str, dtype: str) -> str:
    """Returns the implementation that computes `config.model.attention` on a platform.

    "auto" is splash attention on a TPU, and cuDNN's on a GPU in bfloat16, which has no float32; elsewhere, and for what these
    kernels cannot do, it stays "auto": `merit_jax.models.modules.attention.implementation_of` decides by the row's length.

    Args:
        name: `config.model.attention`.
        platform: "cpu", "gpu" or "tpu".
        dtype: Type of the computation.

    Raises:
        ValueError: The platform has no such implementation, or not in that type.

    Examples:
        >>> attention_for("auto", "tpu", "bfloat16"), attention_for("auto", "gpu", "float32")
        ('splash', 'auto')
    """
    if name == "auto":
        found = {home: kernel for kernel, home in PLATFORMS.items()}.get(platform, "auto")
        return "auto" if (found, dtype) == ("cudnn", "float32") else found
    needed = PLATFORMS.get(name, platform)
    if needed != platform:
        device = {"gpu": "an NVIDIA GPU", "tpu": "a TPU"}[needed]
        raise ValueError(f"model.attention = {name!r} needs {device}, and the devices are: {platform}; use 'auto'")
    if name == "cudnn" and dtype == "float32":
        raise ValueError(
            "model.attention = 'cudnn' has no float32; set model.dtype to 'bfloat16', or model.attention to 'auto'"
        )
    return name
