"""Translation of a merge to a mergekit configuration, so that anyone can repeat it there (written for mergekit 0.1.5).

mergekit's parameters differ from ours where it says so here: its `weight` enters TIES's election and mean alike, its `rescale`
of DARE restores the L1 norm (the paper divides by 1 − p, which `lambda` does here), and its trim is by tensor. Statistics of
stacked layers are those of each layer's tensor here, so a run's merge has the same configuration as one of folders.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import yaml


class Recipe(NamedTuple):
    """A merge in mergekit's terms.

    Attributes:
        method: mergekit's `merge_method`.
        shared: Parameters of the method.
        weights: `weight` of each model, or None where the method takes none.
        own: Further parameters, the same for each model.
        needs_base: Whether the method works on differences from a base model.
        with_base: Weight of the base model as one of those averaged, or None.
        note: The part that does not repeat to the bit.
    """

    method: str
    shared: Mapping[str, Any]
    weights: Sequence[float] | None
    own: Mapping[str, Any] = {}
    needs_base: bool = True
    with_base: float | None = None
    note: str = ""


def recipe(
    method: str,
    options: Mapping[str, Any],
    base: str,
    models: Sequence[str],
    weights: Sequence[float] | None,
    dtypes: Collection[str] = (),
    *,
    comment: str = "",
) -> str | None:
    """Returns the text of a mergekit configuration.

    Args:
        method: Name of one of our operators.
        options: Every option of it.
        base: theta0, as mergekit will find it.
        models: The branches, likewise.
        weights: Those that the operator used, one per branch (`Merger.used_weights`); None where it used none.
        dtypes: The floating types that the result is stored in; one is passed on as `out_dtype`.
        comment: For the file's head.

    Returns:
        None where mergekit cannot do the same.
    """
    make = RECIPES.get(method)
    given = (1.0,) * len(models) if weights is None else tuple(float(weight) for weight in weights)
    found = make(dict(options), given) if make else None
    if found is None or (base in models and (found.needs_base or found.with_base is not None)):
        return None
    own = [{} if found.weights is None else {"weight": float(weight)} for weight in found.weights or given]
    rows = [{"model": model, **_parameters({**weight, **found.own})} for model, weight in zip(models, own, strict=True)]
    if found.with_base is not None:
        rows = [{"model": base, **_parameters({"weight": found.with_base})}, *rows]
    content = {
        "merge_method": found.method,
        **({"base_model": base} if found.needs_base else {}),
        "models": rows,
        **_parameters(found.shared),
        "dtype": "float32",
        **({"out_dtype": next(iter(dtypes))} if len(dtypes) == 1 else {}),
    }
    head = "".join(f"# {line}\n" for text in (comment, found.note) for line in text.splitlines())
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"parameters": dict(values)} if values else {}


def _linear(options: Mapping[str, Any], weights: tuple[float, ...]) -> Recipe:
    return Recipe("linear", {"normalize": False}, weights, needs_base=False)


def _interpolate(options: Mapping[str, Any], weights: tuple[float, ...]) -> Recipe:
    return _linear(options, weights)._replace(with_base=1 - sum(weights))


def _task_arithmetic(options: Mapping[str, Any], weights: tuple[float, ...]) -> Recipe:
    shared = {"normalize": False, "lambda": float(options["scale"])}
    return Recipe("task_arithmetic", shared, (1.0,) * len(weights))


def _ties(options: Mapping[str, Any], weights: tuple[float, ...]) -> Recipe | None:
    votes = _votes(options, weights)
    by_tensor = options["density"] == 1 or options["trim_scope"] == "tensor"
    if votes is None or not by_tensor:
        return None
    shared = {"normalize": True, "lambda": float(options["scale"])}
    return Recipe("ties", shared, votes, {"density": float(options["density"])})


def _dare_linear(options: Mapping[str, Any], weights: tuple[float, ...]) -> Recipe:
    return Recipe("dare_linear", _dare(options, normalize=False), weights, _kept(options), note=DRAWN)


def _dare_ties(options: Mapping[str, Any], weights: tuple[float, ...]) -> Recipe | None:
    votes = _votes(options, weights)
    if votes is None:
        return None
    return Recipe("dare_ties", _dare(options, normalize=True), votes, _kept(options), note=DRAWN)


def _model_stock(options: Mapping[str, Any], weights: tuple[float, ...]) -> Recipe:
    return Recipe("model_stock", {"filter_wise": False}, None)


DRAWN = "What is dropped is drawn at random, and differently there."


def _votes(options: Mapping[str, Any], weights: tuple[float, ...]) -> tuple[float, ...] | None:
    """The weights that mergekit's TIES takes, where election and mean are both weighted or both not, or it is all the same."""
    if options["weighted_election"] and options["weighted_mean"]:
        return weights
    weighted = options["weighted_election"] or options["weighted_mean"]
    return None if weighted and len(set(weights)) > 1 else (1.0,) * len(weights)


def _dare(options: Mapping[str, Any], *, normalize: bool) -> dict[str, Any]:
    return {"normalize": normalize, "rescale": False, "lambda": float(options["scale"] / (1 - options["drop_rate"]))}


def _kept(options: Mapping[str, Any]) -> dict[str, float]:
    return {"density": float(1 - options["drop_rate"])}


RECIPES: Mapping[str, Callable[[Mapping[str, Any], tuple[float, ...]], Recipe | None]] = {
    "token_weighted": _linear,
    "uniform": _linear,
    "interpolate": _interpolate,
    "task_arithmetic": _task_arithmetic,
    "ties": _ties,
    "dare_linear": _dare_linear,
    "dare_ties": _dare_ties,
    "model_stock": _model_stock,
}
"""Name of our operator -> `(options, weights) -> Recipe`, None where mergekit cannot do the same."""
