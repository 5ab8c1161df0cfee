"""Reads the machines that a plan is made for: `v5e:8x8`, `v5p:4x4x4`, `h100:8`, `cpu:8`."""

import math
import re
from typing import NamedTuple

from merit_jax.core.registry import lookup


class Chip(NamedTuple):
    """One accelerator, as its maker publishes it.

    Attributes:
        memory: Bytes of HBM (for a CPU: None, the host decides).
        peak: Dense bfloat16 FLOP/s (for a CPU: None).
        link: Bytes per second that a chip can send in its slice or node, all links together (for a CPU: None).
        axes: Axes of a TPU slice's shape; 0 for devices that are just counted.
        compiler: Name of slices of these chips in libtpu; empty for others.
        accelerator: First part of TPU_ACCELERATOR_TYPE.
        cores: Cores of a chip by which TPU_ACCELERATOR_TYPE counts.
    """

    memory: int | None
    peak: float | None
    link: float | None
    axes: int = 0
    compiler: str = ""
    accelerator: str = ""
    cores: int = 1


GIB = 2**30
CHIPS: dict[str, Chip] = {
    "v4": Chip(32 * GIB, 275e12, 300e9, 3, "v4", "v4", 2),
    "v5e": Chip(16 * GIB, 197e12, 200e9, 2, "v5e", "v5litepod"),
    "v5p": Chip(95 * GIB, 459e12, 600e9, 3, "v5p", "v5p", 2),
    "v6e": Chip(32 * GIB, 918e12, 400e9, 2, "v6e", "v6e"),
    "a100": Chip(80 * GIB, 312e12, 300e9),
    "h100": Chip(80 * GIB, 989e12, 450e9),
    "h200": Chip(141 * 10**9, 989e12, 450e9),
    "cpu": Chip(None, None, None),
}
"""From the data sheets of Cloud TPU and NVIDIA: HBM, dense bfloat16 peak, inter-chip interconnect or NVLink (one way)."""


class Topology(NamedTuple):
    """Devices of one slice.

    Attributes:
        kind: A name of `CHIPS`.
        shape: Chips along each axis of the slice, or just their number.
    """

    kind: str
    shape: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        """The chip that it has."""
        return CHIPS[self.kind]

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(self.shape)

    @property
    def platform(self) -> str:
        """The platform by JAX's name."""
        return "cpu" if self.kind == "cpu" else "tpu" if self.chip.compiler else "gpu"

    def __str__(self) -> str:
        return f"{self.kind}:{'x'.join(map(str, self.shape))}"


def parse_topology(text: str) -> Topology:
    """Reads "v5e:8x8", "v5p:4x4x4", "h100:8" or "cpu:8".

    Raises:
        ValueError: It is written in another way, the chip is unknown, or its slices have another number of axes.

    Examples:
        >>> parse_topology("v5e:8x8")
        Topology(kind='v5e', shape=(8, 8))
        >>> parse_topology("v5e:8x8").chips
        64
    """
    match = re.fullmatch(r"([a-z0-9]+):([1-9]\d*(?:x[1-9]\d*)*)", text)
    if match is None:
        raise ValueError(f"topology {text!r}: expected CHIP:SHAPE, such as v5e:8x8, v5p:4x4x4, h100:8 or cpu:8")
    chip, shape = lookup(CHIPS, match[1], "chip"), tuple(map(int, match[2].split("x")))
    if len(shape) != max(chip.axes, 1):
        example = "x".join(["4"] * chip.axes) if chip.axes else "8"
        raise ValueError(
            f"topology {text!r}: {match[1]} takes {max(chip.axes, 1)} number(s), such as {match[1]}:{example}"
        )
    return Topology(match[1], shape)
