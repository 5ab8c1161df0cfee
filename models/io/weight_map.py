"""Tables that tie Hugging Face tensor names to leaves of the params, and the strict matching of the two."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict


class WeightRow(NamedTuple):
    """One line of a key table.

    Attributes:
        key: Hugging Face tensor name; "{layer}" stands for the layer's number, the index on the leaf's leading axis.
        path: Leaf of the params; None for a tensor that the model recomputes (kept as it is on export).
        transpose: Whether the Hugging Face tensor is [out, in] and the leaf [in, out].
        shape: Shape of the Hugging Face tensor if it has more dimensions than the leaf: the kernel of a convolution is
            [out, colours, height, width] there, [in, out] here. None if not.
    """

    key: str
    path: str | None
    transpose: bool = False
    shape: tuple[int, ...] | None = None


class Place(NamedTuple):
    """Where one Hugging Face tensor lives in the params.

    Attributes:
        key: Hugging Face tensor name.
        layer: Index on the leaf's leading axis; None if the tensor is the whole leaf.
        transpose: Whether the tensor is transposed in the leaf.
        shape: As in `WeightRow`.
    """

    key: str
    layer: int | None
    transpose: bool
    shape: tuple[int, ...] | None = None


class WeightMap(NamedTuple):
    """How a checkpoint's tensors and the params correspond.

    Attributes:
        leaves: Leaf path -> its tensors; several with the same layer hold the same numbers (a stored tied unembedding).
        kept: Tensors that belong to no leaf.
    """

    leaves: dict[str, tuple[Place, ...]]
    kept: tuple[str, ...]


def leaf_shapes(abstract: Any) -> dict[str, tuple[int, ...]]:
    """Leaf path -> shape."""
    return {path: tuple(leaf.shape) for path, leaf in flatten_dict(abstract, sep="/").items()}


def tensor_shape(shape: Sequence[int], place: Place) -> tuple[int, ...]:
    """Shape of the Hugging Face tensor at `place` of a leaf of `shape`."""
    if place.shape is not None:
        return place.shape
    shape = tuple(shape) if place.layer is None else tuple(shape[1:])
    return shape[::-1] if place.transpose else shape


def part_of(tensor: np.ndarray, place: Place) -> np.ndarray:
    """What a Hugging Face tensor gives its place of the leaf."""
    if place.shape is not None:
        tensor = tensor.reshape(len(tensor), -1)
    return tensor.T if place.transpose else tensor


def tensor_of(leaf: np.ndarray, place: Place) -> np.ndarray:
    """One tensor of a leaf, in the layout of Hugging Face; a view where possible."""
    part = leaf if place.layer is None else leaf[place.layer]
    part = part.T if place.transpose else part
    return part if place.shape is None else part.reshape(place.shape)


def below(part: str, rows: Iterable[WeightRow]) -> tuple[WeightRow, ...]:
    """The table of a model that is the part `part` of a larger one."""
    return tuple(row if row.path is None else row._replace(path=f"{part}/{row.path}") for row in rows)


def expand(rows: Iterable[WeightRow], shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, Place]]:
    """Every tensor of the rows that have a leaf, with that leaf.

    Args:
        rows: A key table.
        shapes: Leaf path -> shape; the leading axis tells how many layers there are.
    """
    expanded = []
    for key, path, transpose, shape in rows:
        if path is not None:
            numbers = range(shapes[path][0]) if "{layer}" in key else (None,)
            expanded += [(path, Place(key.replace("{layer}", str(n)), n, transpose, shape)) for n in numbers]
    return expanded


def match(
    rows: Sequence[WeightRow],
    optional: Sequence[WeightRow],
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, tuple[int, ...]],
    where: str,
) -> WeightMap:
    """Ties a checkpoint's tensors to leaves, one to one.

    Args:
        rows: Tensors that must be there.
        optional: Tensors that may be there.
        shapes: Leaf path -> shape.
        tensors: Tensor name -> shape, of the checkpoint.
        where: The checkpoint, for error messages.

    Raises:
        ValueError: A tensor is missing, unknown or of another shape.
    """
    required = expand(rows, shapes)
    missing = [place.key for _, place in required if place.key not in tensors]
    if missing:
        raise ValueError(f"{where}: tensor {missing[0]!r} is missing{_more(missing)}; the checkpoint is incomplete")
    found = required + [(path, place) for path, place in expand(optional, shapes) if place.key in tensors]
    kept = _kept(optional, tensors)
    unknown = sorted(set(tensors) - {place.key for _, place in found} - set(kept))
    if unknown:
        raise ValueError(
            f"{where}: tensor {unknown[0]!r}{_more(unknown)} has no place in this architecture: its config.json "
            "describes another model"
        )
    leaves: dict[str, tuple[Place, ...]] = dict.fromkeys(shapes, ())
    for path, place in found:
        _check_shape(tensors[place.key], tensor_shape(shapes[path], place), f"{where}: tensor {place.key!r}")
        leaves[path] += (place,)
    return WeightMap(leaves, kept)


def _kept(rows: Iterable[WeightRow], tensors: Iterable[str]) -> tuple[str, ...]:
    """The tensors that rows without a leaf name."""
    patterns = [re.escape(row.key).replace(re.escape("{layer}"), r"\d+") for row in rows if row.path is None]
    return tuple(key for key in tensors if any(re.fullmatch(pattern, key) for pattern in patterns))


def _check_shape(got: tuple[int, ...], expected: tuple[int, ...], what: str) -> None:
    if tuple(got) != expected:
        raise ValueError(f"{what} has shape {tuple(got)}, but the config asks for {expected}")


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
