"""Numbers of artifacts, in which null stands for what is not finite."""

from collections.abc import Sequence

from merit_jax.reporting.figures import Number


def floats(values: Sequence[Number | None]) -> list[float]:
    """The numbers, NaN for null."""
    return [float("nan") if value is None else float(value) for value in values]


def text(value: Number | None, decimals: int = 3) -> str:
    """A number with so many decimals."""
    return "not finite" if value is None else f"{value:.{decimals}f}"
