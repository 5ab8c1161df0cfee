"""Tables that tie Hugging Face tensor names to leaves of the params, and the strict matching of the two."""

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

AXES = ("{layer}", "{expert}")
"""What stands in a key for an index on the leaf's leading axes, in their order."""


class WeightRow(NamedTuple):
    """One line of a key table.

    Attributes:
        key: Hugging Face tensor name; "{layer}" stands for the layer's number, the index on the leaf's leading axis, and
            "{expert}" for the expert's, the index on the next one.
        path: Leaf of the params; None for a tensor that may be there and that the model recomputes (kept as it is on export).
        transpose: Whether the Hugging Face tensor is [out, in] and the leaf [in, out].
        shape: Shape of the Hugging Face tensor if it has more dimensions than the leaf: the kernel of a convolution is
            [out, colours, height, width] there, [in, out] here. None if not.
        optional: Whether a checkpoint may lack the tensor, because another one has the same numbers.
        rows: Where the leaf is only a part of the Hugging Face tensor: its first row there, the row after its last, and the
            rows of the tensor. None if it is all of it.
    """

    key: str
    path: str | None
    transpose: bool = False
    shape: tuple[int, ...] | None = None
    optional: bool = False
    rows: tuple[int, int, int] | None = None


class Place(NamedTuple):
    """The place of one Hugging Face tensor in the params.

    Attributes:
        key: Hugging Face tensor name.
        at: Index on the leaf's leading axes: layer, then expert; empty if the tensor is the whole leaf.
        transpose: Whether the tensor is transposed in the leaf.
        shape: As in `WeightRow`.
        rows: As in `WeightRow`.
    """

    key: str
    at: tuple[int, ...]
    transpose: bool
    shape: tuple[int, ...] | None = None
    rows: tuple[int, int, int] | None = None


class WeightMap(NamedTuple):
    """The correspondence of a checkpoint's tensors and the params.

    Attributes:
        leaves: Leaf path -> its tensors; several with the same index hold the same numbers (a stored tied unembedding).
        kept: Tensors that belong to no leaf.
    """

    leaves: dict[str, tuple[Place, ...]]
    kept: tuple[str, ...]


def leaf_shapes(abstract: Any) -> dict[str, tuple[int, ...]]:
    """Returns leaf path -> shape."""
    return {path: tuple(leaf.shape) for path, leaf in flatten_dict(abstract, sep="/").items()}


def tensor_shape(shape: Sequence[int], place: Place) -> tuple[int, ...]:
    """Returns the shape of the Hugging Face tensor at `place` of a leaf of `shape`.

    Examples:
        >>> tensor_shape((12, 24, 40), Place("layers.3.up.weight", at=(3,), transpose=True))
        (40, 24)
        >>> tensor_shape((12, 24, 40), Place("layers.3.gate_up.weight", (3,), True, rows=(40, 80, 80)))
        (80, 24)
    """
    if place.shape is not None:
        return place.shape
    shape = tuple(shape[len(place.at) :])
    shape = shape[::-1] if place.transpose else shape
    return shape if place.rows is None else (place.rows[2], *shape[1:])


def part_of(tensor: np.ndarray, place: Place) -> np.ndarray:
    """Returns the part of a leaf that a Hugging Face tensor holds, the inverse of `tensor_of`."""
    if place.shape is not None:
        tensor = tensor.reshape(len(tensor), -1)
    if place.rows is not None:
        tensor = tensor[place.rows[0] : place.rows[1]]
    return tensor.T if place.transpose else tensor


def tensor_of(leaf: np.ndarray, place: Place) -> np.ndarray:
    """Returns one tensor of a leaf, or the rows of it that the leaf has, in the layout of Hugging Face; a view where possible.

    Examples:
        >>> stacked = np.arange(8).reshape(2, 2, 2)
        >>> tensor_of(stacked, Place("layers.1.up.weight", at=(1,), transpose=True)).tolist()
        [[4, 6], [5, 7]]
    """
    part = leaf[place.at]
    part = part.T if place.transpose else part
    return part if place.shape is None else part.reshape(place.shape)


def below(part: str, rows: Iterable[WeightRow]) -> tuple[WeightRow, ...]:
    """Returns the table of a model that is the part `part` of a larger one."""
    return tuple(row if row.path is None else row._replace(path=f"{part}/{row.path}") for row in rows)


def expand(
    rows: Iterable[WeightRow], shapes: Mapping[str, tuple[int, ...]], stored: Container[str] = ()
) -> list[tuple[str, Place]]:
    """Returns every tensor of the rows that have a leaf, with that leaf.

    Args:
        rows: A key table.
        shapes: Leaf path -> shape; the leading axis gives the number of layers.
        stored: Tensor names; optional tensors are left out unless they are among them.

    Examples:
        >>> row = WeightRow("layers.{layer}.norm.weight", "layers/norm/scale")
        >>> [(path, place.key) for path, place in expand([row], {"layers/norm/scale": (2, 8)})]
        [('layers/norm/scale', 'layers.0.norm.weight'), ('layers/norm/scale', 'layers.1.norm.weight')]
    """
    expanded = []
    for row in rows:
        if row.path is not None:
            axes = [axis for axis in AXES if axis in row.key]
            indices = np.ndindex(shapes[row.path][: len(axes)])
            places = [Place(_named(row.key, axes, n), n, row.transpose, row.shape, row.rows) for n in indices]
            expanded += [(row.path, place) for place in places if not row.optional or place.key in stored]
    return expanded


def _named(key: str, axes: Sequence[str], index: Sequence[int]) -> str:
    """Returns the key of one tensor of a row."""
    for axis, number in zip(axes, index, strict=True):
        key = key.replace(axis, str(number))
    return key


def grouped(leaves: Mapping[str, Sequence[Place]]) -> list[dict[str, list[tuple[str, Place]]]]:
    """Returns tensor name -> the leaves that have parts of it, and which; in groups, outside of which no leaf has parts of them.

    Examples:
        >>> halves = [Place("gate_up", (), True, rows=rows) for rows in ((0, 2, 4), (2, 4, 4))]
        >>> found = grouped({"gate": halves[:1], "norm": [Place("norm", (), False)], "up": halves[1:]})
        >>> [{key: [path for path, _ in parts] for key, parts in group.items()} for group in found]
        [{'gate_up': ['gate', 'up']}, {'norm': ['norm']}]
    """
    groups: dict[str, dict[str, list[tuple[str, Place]]]] = {}
    group_of_key: dict[str, str] = {}
    for path, places in leaves.items():
        first = next((group_of_key[place.key] for place in places if place.key in group_of_key), path)
        for place in places:
            groups.setdefault(first, {}).setdefault(place.key, []).append((path, place))
            group_of_key[place.key] = first
    return list(groups.values())


def match(
    rows: Sequence[WeightRow], shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, tuple[int, ...]], where: str
) -> WeightMap:
    """Ties a checkpoint's tensors to leaves, one to one.

    Args:
        rows: A key table.
        shapes: Leaf path -> shape.
        tensors: Tensor name -> shape, of the checkpoint.
        where: The checkpoint, for error messages.

    Raises:
        ValueError: A tensor is missing, unknown or of another shape.
    """
    found = expand(rows, shapes, tensors)
    missing = [place.key for _, place in found if place.key not in tensors]
    if missing:
        raise ValueError(f"{where}: tensor {missing[0]!r} is missing{_more(missing)}; the checkpoint is incomplete")
    kept = _kept(rows, tensors)
    unknown = sorted(set(tensors) - {place.key for _, place in found} - set(kept))
    if unknown:
        raise ValueError(
            f"{where}: tensor {unknown[0]!r}{_more(unknown)} has no place in this architecture: its config.json "
            "describes another model"
        )
    leaves: dict[str, tuple[Place, ...]] = dict.fromkeys(shapes, ())
    for path, place in found:
        got, expected = tuple(tensors[place.key]), tensor_shape(shapes[path], place)
        if got != expected:
            raise ValueError(f"{where}: tensor {place.key!r} has shape {got}, but the config asks for {expected}")
        leaves[path] += (place,)
    return WeightMap(leaves, kept)


def _kept(rows: Iterable[WeightRow], tensors: Iterable[str]) -> tuple[str, ...]:
    """Returns the tensors that rows without a leaf name."""
    patterns = [re.escape(row.key).replace(re.escape("{layer}"), r"\d+") for row in rows if row.path is None]
    return tuple(key for key in tensors if any(re.fullmatch(pattern, key) for pattern in patterns))


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
