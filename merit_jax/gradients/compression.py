"""The compressors by name."""

from collections.abc import Callable

from merit_jax.core.registry import lookup
from merit_jax.gradients.compressor import Compressor
from merit_jax.gradients.count_sketch import CountSketch
from merit_jax.gradients.stride import Stride

COMPRESSORS: dict[str, Callable[[int, int], Compressor]] = {
    "countsketch": lambda stride, width: CountSketch(_at_least_one("gradients.width", width)),
    "stride": lambda stride, width: Stride(_at_least_one("gradients.stride", stride)),
}
"""Value of `gradients.reduction` -> (stride, width) -> the compressor."""


def make_compressor(name: str, *, stride: int, width: int) -> Compressor:
    """Makes the compressor that config key `gradients.reduction` names, with its own of the two settings.

    Raises:
        ValueError: There is no such compressor, or its setting is below 1.

    Examples:
        >>> make_compressor("stride", stride=5, width=64)
        Stride(stride=5)
    """
    return lookup(COMPRESSORS, name, "gradients.reduction")(stride, width)


def _at_least_one(key: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{key} = {value}; expected 1 or more")
    return value
