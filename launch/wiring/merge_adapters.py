"""Merges PEFT adapters of one base model into one adapter: the sum of their products, never an average of A and of B."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from merit_jax.launch.wiring.adapter_export import adapter_card, capped
from merit_jax.launch.wiring.merge_folders import found_models, operator_of, refuse_twice
from merit_jax.merging.model_card import folder_card
from merit_jax.models.adapters.low_rank import LowRank, weighted_sum
from merit_jax.models.io.peft_config import is_adapter
from merit_jax.models.io.raw_tensors import StoredTensors
from merit_jax.models.pretrained.peft_export import Placed, check_peft_export, write_peft
from merit_jax.models.pretrained.peft_folder import AdaptedTensors


def merge_adapters(
    base: str,
    models: Sequence[str],
    weights: Sequence[float] | None,
    method: str,
    options: Mapping[str, Any],
    out: str,
    rank: int = 0,
    tokens: Sequence[int] | None = None,
) -> None:
    """Writes one adapter with the difference of the merged model from the base, `Σ_k c_k s_k B_k A_k`.

    Args:
        base: Folder of the base model, or its name on the hub.
        models: Folders of the adapters, or their names there.
        weights: As for `merge_folders`, like `method`, `options` and `tokens`.
        method: A key of `MERGERS` that is linear.
        options: Options of the method.
        out: Folder to make.
        rank: Rank of each module's update at most, by SVD; 0: the sum of theirs, which is exact.
        tokens: Supervised tokens that each model was trained on.

    Raises:
        ValueError: A folder is no adapter, or does not fit the base; one is DoRA's or stores modules whole, or the method is not
            linear, so that the difference is no sum of products; or as for `merge_folders`.
    """
    merger, resolved = operator_of(models, weights, method, options, tokens)
    refuse_twice(models)
    check_peft_export(out)
    if merger.linear is None:
        raise ValueError(
            f"--method={method} is not linear: what it makes of adapters has no low rank. Merge into a whole model, without "
            "--adapter"
        )
    (base, *models), (folder, *folders) = found_models(base, models)
    theta0 = StoredTensors(folder)
    adapters = [_opened(adapter, theta0) for adapter in folders]
    known = weights if weights is not None else [1 / len(models)] * len(models)
    used = merger.used_weights(known, resolved)
    found = capped(_sums(adapters, list(used.values or known)), rank)
    card = adapter_card(folder_card(base, models, method, used, resolved, tokens), found)
    kinds = {key: update for adapter in adapters for key, update in adapter.updates.items()}
    placed = {
        key: Placed(update, not kinds[key].out_in and not kinds[key].of_table, kinds[key].of_table)
        for key, update in found.updates.items()
    }
    write_peft(out, placed, base, card)


def _opened(model: str, base: StoredTensors) -> AdaptedTensors:
    """Opens an adapter whose model differs from the base by low-rank products alone."""
    if not is_adapter(model):
        raise ValueError(
            f"--models has {model}, which is no adapter of PEFT; leave out --adapter to merge into a whole model"
        )
    found = AdaptedTensors(model, base)
    if found.settings.dora or found.whole:
        what = "DoRA's" if found.settings.dora else f"one that stores {next(iter(found.whole))} whole"
        raise ValueError(
            f"{model}: the adapter is {what}, so it is no sum of low-rank products; merge into a whole model, without --adapter"
        )
    return found


def _sums(adapters: Sequence[AdaptedTensors], factors: Sequence[float]) -> Iterator[tuple[str, LowRank]]:
    """Yields the weighted sum of the updates of every tensor that an adapter changes."""
    for key in sorted({key for adapter in adapters for key in adapter.updates}):
        there = [(adapter, factor) for adapter, factor in zip(adapters, factors, strict=True) if key in adapter.updates]
        yield key, weighted_sum([adapter.update(key) for adapter, _ in there], [factor for _, factor in there])
