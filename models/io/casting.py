"""Casts to the type that a tensor is stored in, which must be able to hold its values."""

import numpy as np


def stored_as(values: np.ndarray, dtype: np.dtype, name: str, place: str) -> np.ndarray:
    """Casts a tensor, refusing values that are not finite before or after.

    Args:
        values: The tensor.
        dtype: The type to cast to.
        name: The tensor's name, for error messages.
        place: What asks for the type, likewise, with what to do instead.

    Raises:
        ValueError: A value is beyond the range of the type, or NaN or infinite in the first place.

    Examples:
        >>> stored_as(np.float32([65504, 7e4]), np.dtype(np.float16), "w", "the type asked for; use bfloat16 or float32")
        Traceback (most recent call last):
        ValueError: w: values up to 7e+04 do not fit float16, the type asked for; use bfloat16 or float32
    """
    with np.errstate(over="ignore"):
        cast = values.astype(dtype, copy=False)
    if np.isfinite(cast).all():
        return cast
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: holds values that are not finite; the model that they come from has diverged")
    largest = float(np.abs(values).max())
    raise ValueError(f"{name}: values up to {largest:.4g} do not fit {dtype}, {place}")
