"""The compressors by name."""

from collections.abc import Callable

from merit_jax.core.registry import lookup
from merit_jax.gradients.compressor import Compressor
from merit_jax.gradients.count_sketch import CountSketch
from merit_jax.gradients.stride import Stride


def make_compressor(name: str, *, stride: int, width: int) -> Compressor:
    """Makes the compressor that config key `gradients.reduction` names, with its own of the two settings.

    Raises:
        ValueError: There is no such compressor, or its setting is below 1.

    Examples:
        >>> make_compressor("stride", stride=5, width=64)
        Stride(stride=5)
    """
    makers: dict[str, Callable[[], Compressor]] = {
        "countsketch": lambda: CountSketch(_at_least_one("gradients.width", width)),
        "stride": lambda: Stride(_at_least_one("gradients.stride", stride)),
    }
    return lookup(makers, name, "gradients.reduction")()


def _at_least_one(key: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{key} = {value}; expected 1 or more")
    return value
