"""Tables that tie Hugging Face tensor names to leaves of the params, and the strict matching of the two."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict


class Row(NamedTuple):
    """One line of a key table.

    Attributes:
        key: Hugging Face tensor name; "{layer}" stands for the layer's number.
        path: Leaf of the params; None for a tensor that the model recomputes (kept as it is on export).
        transpose: Whether the Hugging Face tensor is [out, in] and the leaf [in, out].
    """

    key: str
    path: str | None
    transpose: bool = False


class Place(NamedTuple):
    """Where one Hugging Face tensor lives in the params.

    Attributes:
        key: Hugging Face tensor name.
        layer: Index on the leaf's leading axis; None if the tensor is the whole leaf.
        transpose: Whether the tensor is transposed in the leaf.
    """

    key: str
    layer: int | None
    transpose: bool


class Layout(NamedTuple):
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
    shape = tuple(shape) if place.layer is None else tuple(shape[1:])
    return shape[::-1] if place.transpose else shape


def expand(rows: Iterable[Row], layers: int) -> list[tuple[str | None, Place]]:
    """Every tensor of a table, with the leaf it belongs to."""
    expanded = []
    for row in rows:
        numbers = range(layers) if "{layer}" in row.key else (None,)
        expanded += [(row.path, Place(row.key.replace("{layer}", str(n)), n, row.transpose)) for n in numbers]
    return expanded


def match(
    rows: Sequence[Row],
    optional: Sequence[Row],
    shapes: Mapping[str, tuple[int, ...]],
    layers: int,
    tensors: Mapping[str, tuple[int, ...]],
    where: str,
) -> Layout:
    """Ties a checkpoint's tensors to leaves, one to one.

    Args:
        rows: Tensors that must be there.
        optional: Tensors that may be there.
        shapes: Leaf path -> shape.
        layers: Number of layers.
        tensors: Tensor name -> shape, of the checkpoint.
        where: The checkpoint, for error messages.

    Raises:
        ValueError: A tensor is missing, unknown or of another shape.
    """
    required = expand(rows, layers)
    missing = [place.key for _, place in required if place.key not in tensors]
    if missing:
        raise ValueError(f"{where}: tensor {missing[0]!r} is missing{_more(missing)}; the checkpoint is incomplete")
    found = required + [(path, place) for path, place in expand(optional, layers) if place.key in tensors]
    unknown = sorted(set(tensors) - {place.key for _, place in found})
    if unknown:
        raise ValueError(
            f"{where}: tensor {unknown[0]!r}{_more(unknown)} has no place in this architecture: its config.json "
            "describes another model"
        )
    leaves: dict[str, tuple[Place, ...]] = dict.fromkeys(shapes, ())
    for path, place in found:
        if path is not None:
            _check_shape(tensors[place.key], tensor_shape(shapes[path], place), f"{where}: tensor {place.key!r}")
            leaves[path] += (place,)
    return Layout(leaves, tuple(place.key for path, place in found if path is None))


def _check_shape(got: tuple[int, ...], expected: tuple[int, ...], what: str) -> None:
    if tuple(got) != expected:
        raise ValueError(f"{what} has shape {tuple(got)}, but the config asks for {expected}")


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
