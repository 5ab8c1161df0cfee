"""Chooses the attention heads that stay, given a score of each."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn

import numpy as np
from jaxtyping import Bool, Float

from merit_jax.core.heads import ByHead
from merit_jax.core.registry import lookup

Kept = dict[str, Bool[np.ndarray, "layers heads"]]
"""Part of a model -> True for the heads that stay."""


def choose(
    scores: ByHead,
    groups: Mapping[str, int],
    ratio: float,
    *,
    unit: str = "head",
    spread: str = "model",
    keep: int = 1,
    coarse: bool = False,
) -> Kept:
    """Chooses the heads that stay: those of the lowest scores go, of equal ones the first (HIES, arXiv:2510.13832).

    Args:
        scores: Part of the model -> scores of its heads; all of its layers have the same number of heads.
        groups: Part -> key and value heads of a layer; each serves neighbouring query heads.
        ratio: Share of all heads to remove, in [0, 1); the number is rounded to what `unit` and `spread` permit.
        unit: "head": single query heads; "group": a key and value head with all of its query heads, by their mean score.
        spread: "model": the lowest units of all parts and layers. "layer": in each part, the same number in every layer; of heads
            that share keys and values, the same number in every group of a layer.
        keep: Units that every layer keeps at least.
        coarse: A ratio that is too small to remove a unit removes none, instead of being refused.

    Returns:
        Part -> True for the heads that stay.

    Raises:
        ValueError: A name is unknown, a score is not finite, scores and groups do not fit together, or the ratio is out of
            range: the message has the largest possible one, or the smallest that removes a head.

    Examples:
        >>> scores = {"decoder": np.array([[0.1, 0.2, 0.9, 0.8], [0.7, 0.6, 0.5, 0.4]])}
        >>> choose(scores, {"decoder": 2}, 0.25)["decoder"].astype(int).tolist()
        [[0, 0, 1, 1], [1, 1, 1, 1]]
        >>> choose(scores, {"decoder": 2}, 0.5, spread="layer")["decoder"].astype(int).tolist()
        [[0, 1, 1, 0], [1, 0, 1, 0]]
        >>> choose(scores, {"decoder": 2}, 0.5, unit="group", spread="layer")["decoder"].astype(int).tolist()
        [[0, 0, 1, 1], [1, 1, 0, 0]]
    """
    members, over = lookup(UNITS, unit, "unit"), lookup(SPREADS, spread, "spread")
    _check(scores, groups, ratio, keep)
    if ratio == 0:
        return {part: np.ones(values.shape, bool) for part, values in scores.items()}
    units = {}
    for part, values in scores.items():
        of_units = members(np.asarray(values, np.float64), groups[part])
        heads, number = values.shape[1], of_units.shape[1]
        units[part] = _Units(of_units, heads // number, max(number // groups[part], 1))
    kept = over(units, ratio, keep, coarse)
    return {part: np.repeat(kept[part], units[part].heads, axis=1) for part in scores}


def removed_ratio(kept: ByHead) -> float:
    """Returns the share of all heads of the parts that do not stay.

    Examples:
        >>> removed_ratio({"decoder": np.array([[True, False], [True, True]])})
        0.25
    """
    return sum(int((~part).sum()) for part in kept.values()) / sum(part.size for part in kept.values())


class _Units(NamedTuple):
    """The units of removal of a part.

    Attributes:
        scores: Their scores.
        heads: Query heads of a unit.
        shared: Units that share keys and values.
    """

    scores: Float[np.ndarray, "layers units"]
    heads: int
    shared: int


def _check(scores: ByHead, groups: Mapping[str, int], ratio: float, keep: int) -> None:
    """Raises ValueError for arguments that no choice can be made of."""
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio = {ratio}: expected a share of heads in [0, 1)")
    if keep < 1:
        raise ValueError(f"keep = {keep}: expected 1 or more, for a layer without heads has no attention")
    if not scores:
        raise ValueError("there are scores of no part; expected those of a part of the model that has attention heads")
    for part, values in scores.items():
        heads = values.shape[1]
        if part not in groups or groups[part] < 1 or heads % groups[part]:
            raise ValueError(f"{part}: {heads} heads of a layer are not shared evenly by groups = {groups.get(part)}")
        if not np.isfinite(values).all():
            layer, head = np.argwhere(~np.isfinite(values))[0]
            raise ValueError(
                f"{part}: the score of head {head} of layer {layer} is {values[layer, head]}; expected a number"
            )


def _of_groups(scores: np.ndarray, groups: int) -> np.ndarray:
    return scores.reshape(len(scores), groups, -1).mean(axis=2)


UNITS: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] = {"head": lambda scores, _: scores, "group": _of_groups}
"""Unit of removal -> (scores of heads, groups) -> scores of units, [layers, units]."""


def _over_model(units: Mapping[str, _Units], ratio: float, keep: int, coarse: bool) -> dict[str, np.ndarray]:
    """Removes the lowest units of the model whose layers keep enough; of numbers of heads, that nearest to the ratio's."""
    total = sum(part.heads * part.scores.size for part in units.values())
    places = [(name, *place) for name, part in units.items() for place in np.ndindex(part.scores.shape)]
    order = np.argsort(np.concatenate([part.scores.ravel() for part in units.values()]), kind="stable")
    left = {name: np.full(len(part.scores), part.scores.shape[1]) for name, part in units.items()}
    going = []
    for name, layer, unit in (places[number] for number in order):
        if left[name][layer] > keep:
            left[name][layer] -= 1
            going.append((name, layer, unit))
    removed, target = np.cumsum([0, *(units[name].heads for name, _, _ in going)]), _rounded(ratio * total)
    if target - removed[-1] > max(part.heads for part in units.values()) / 2:
        _refuse_large(ratio, removed[-1] / total, f"every layer keeps {keep} of its units")
    number = int(np.argmin(np.abs(removed - target)))
    if not number and not coarse:
        _refuse_small(ratio, removed[min(1, len(going))] / total, "of the model")
    kept = {name: np.ones(part.scores.shape, bool) for name, part in units.items()}
    for name, layer, unit in going[:number]:
        kept[name][layer, unit] = False
    return kept


def _over_layers(units: Mapping[str, _Units], ratio: float, keep: int, coarse: bool) -> dict[str, np.ndarray]:
    """Removes the same number of the lowest units in every layer of a part, or in every group of heads of a layer."""
    kept = {}
    for name, part in units.items():
        of_layer = part.scores.shape[1]
        members = part.shared if part.shared > 1 else of_layer
        least = max(1, math.ceil(keep * members / of_layer))
        number, place = _rounded(ratio * members), f"{'group' if part.shared > 1 else 'layer'} of {name}"
        if number > members - least:
            _refuse_large(ratio, max(members - least, 0) / members, f"{least} of every {place} must stay")
        if not number and not coarse:
            _refuse_small(ratio, 1 / members, f"of a {place}")
        rows = part.scores.reshape(-1, members)
        stays = np.ones(rows.shape, bool)
        np.put_along_axis(stays, np.argsort(rows, axis=1, kind="stable")[:, :number], False, axis=1)
        kept[name] = stays.reshape(part.scores.shape)
    return kept


SPREADS: Mapping[str, Callable[[Mapping[str, _Units], float, int, bool], dict[str, np.ndarray]]] = {
    "model": _over_model,
    "layer": _over_layers,
}
"""Spread of removal -> (units, ratio, keep, coarse) -> True for the units that stay."""


def _rounded(number: float) -> int:
    """Returns the nearest whole number, of two the larger."""
    return math.floor(number + 0.5)


def _refuse_large(ratio: float, largest: float, floor: str) -> NoReturn:
    raise ValueError(f"ratio = {ratio} removes too many heads: {floor}; the largest possible ratio is {largest:.5g}")


def _refuse_small(ratio: float, smallest: float, place: str) -> NoReturn:
    raise ValueError(f"ratio = {ratio} removes no head {place}; the smallest step is a ratio of {smallest:.5g}")
