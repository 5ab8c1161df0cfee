"""Merges Hugging Face folders, holding one tensor of each at a time."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from merit_jax.checkpoints import compatibility
from merit_jax.core.progress import bar
from merit_jax.core.registry import lookup
from merit_jax.launch.wiring.model_path import resolve
from merit_jax.merging import MERGERS, Merger
from merit_jax.merging.exclude import merged_paths
from merit_jax.merging.merge import Merge
from merit_jax.merging.mergekit_config import recipe
from merit_jax.merging.model_card import folder_card
from merit_jax.merging.options import resolve_options
from merit_jax.models.io.folder_writer import MAX_SHARD_BYTES
from merit_jax.models.io.left_behind import left_behind
from merit_jax.models.io.peft_config import is_adapter
from merit_jax.models.io.raw_tensors import StoredTensors
from merit_jax.models.pretrained.pairing import Pairing, pair
from merit_jax.models.pretrained.peft_folder import AdaptedTensors
from merit_jax.models.processing.config_differences import config_differences, setting_of
from merit_jax.models.processing.vocabulary import check_vocabularies, read_vocabulary, rule_notes, same_tokenizer

log = logging.getLogger("merit_jax")

MAX_NAMED = 5
"""Differences of two configs that an error names."""


def merge_folders(
    base: str,
    models: Sequence[str],
    weights: Sequence[float] | None,
    method: str,
    options: Mapping[str, Any],
    out: str,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    tokens: Sequence[int] | None = None,
    exclude: Sequence[str] = (),
) -> None:
    """Writes the merge of Hugging Face folders, with a model card and, where mergekit has the method, `mergekit.yaml`.

    Args:
        base: theta0, a folder or OWNER/NAME of the hub; its config, tokenizer and types are taken over.
        models: The models that were fine-tuned from it, likewise.
        weights: One per model, with sum 1; None: equal.
        method: A key of `MERGERS`.
        options: Options of the method.
        out: Folder to make.
        max_shard_bytes: Size of a weight file before a new one is begun.
        tokens: Supervised tokens that each model was trained on, from which the weights are; for the model card.
        exclude: Regular expressions over tensor names that stay the base's.

    Raises:
        ValueError: A folder is damaged or not named, models differ in what they compute, in tensors, shapes or vocabulary, a
            value is not finite or does not fit the base's type, weights or options are wrong, or there are weights (not None)
            for a method that takes none.
        OSError: A file cannot be read or written, or there is no room for the folder.
    """
    merger, resolved = operator_of(models, weights, method, options, tokens)
    (base, *models), (folder, *folders) = found_models(base, models)
    theta0, paired = open_models(folder, folders)
    names = merged_paths(paired.models[0].paths(), exclude, len(models), "--exclude")
    paired = paired._replace(models=tuple(model.only(names) for model in paired.models))
    theta0.check_export(out)
    known = weights if weights is not None else [1 / len(models)] * len(models)
    merge = _prepared(merger, theta0, paired, known, resolved)
    used = merger.used_weights(merge.weights, merge.options)
    extra = folder_card(base, models, method, used, merge.options, tokens, exclude)
    known_to_mergekit = not exclude and not any(is_adapter(folder) for folder in folders)
    if known_to_mergekit and (yaml := recipe(method, merge.options, base, models, used.values, theta0.dtypes)):
        extra = {**extra, "mergekit.yaml": yaml}
    with bar(len(theta0.paths()), "merge", "tensor") as progress:

        def value(path: str) -> Any:
            progress.update()
            return merge.value(paired.copies.get(path, path))

        theta0.export(out, value, extra, max_shard_bytes)


def found_models(base: str, models: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns names and folders of the base and the models; a name of the hub with its commit."""
    names = [(base, "--base"), *((model, "--models") for model in models)]
    found = [resolve(name, flag) for name, flag in names]
    return [f.origin or name for f, (name, _) in zip(found, names, strict=True)], [str(f.path) for f in found]


def operator_of(
    models: Sequence[str],
    weights: Sequence[float] | None,
    method: str,
    options: Mapping[str, Any],
    tokens: Sequence[int] | None,
) -> tuple[Merger, dict[str, Any]]:
    """Returns the operator and all its options; arguments as for `merge_folders`.

    Raises:
        ValueError: A model is not named, the operator needs training data, options are wrong, or weights make no difference.
    """
    if not models or not all(models):
        raise ValueError(
            f"--models={','.join(models)}: an entry is empty; give the folders, with one comma between two"
        )
    merger = lookup(MERGERS, method, "method")
    if merger.statistic is not None:
        raise ValueError(
            f"--method={method} needs {merger.statistic.needs}; use it in merit run, with --config.merge.method"
        )
    resolved = resolve_options(merger.leaf, options)
    if weights is not None and not merger.weighted(resolved):
        flag = "--weights make" if tokens is None else "--partition gives weights, which make"
        raise ValueError(
            f"{flag} no difference to --method={method} with options {json.dumps(resolved)}; leave them out"
        )
    return merger, resolved


def _prepared(
    merger: Merger, base: StoredTensors, paired: Pairing, weights: Sequence[float], options: Mapping[str, Any]
) -> Merge:
    """Prepares the merge of paired tensors, of which each is one layer's."""
    return merger.prepare(
        base,
        paired.models,
        weights,
        options,
        linear_maps=base.linear_map,
        stacked_axes=lambda path, spec: 0,
        sources=lambda path, k: str(base.file_of(path)) if k is None else paired.models[k].source(path),
    )


def open_models(base: str, models: Sequence[str]) -> tuple[StoredTensors, Pairing]:
    """Opens folders after checking that they compute the same with the same tensors for the same tokens.

    Logs what could not be compared, and what will not be in the merged folder.

    Returns:
        The base, and the tensors of all under the base's names.

    Raises:
        ValueError: They do not, or a folder is given twice.
    """
    refuse_twice(models)
    theta0 = StoredTensors(base)
    thetas = [AdaptedTensors(model, theta0) if is_adapter(model) else StoredTensors(model) for model in models]
    for theta in thetas:
        _same_computation(theta0, theta)
    paired = pair(theta0, thetas)
    compatibility.same_tree(paired.base.paths(), [theta.paths() for theta in paired.models], models)
    notes = _tokenizer_notes(base, models, theta0)
    notes += [n for f in (theta0, *thetas) if not isinstance(f, AdaptedTensors) for n in left_behind(f.path)]
    for note in dict.fromkeys(notes):
        log.warning(note)
    return theta0, paired


def refuse_twice(models: Sequence[str]) -> None:
    """Refuses a folder that is given twice."""
    folders = [Path(model).resolve() for model in models]
    for k, folder in enumerate(folders):
        if folder in folders[:k]:
            raise ValueError(f"--models has {models[k]} twice; give it once, with the sum of its weights")


def _same_computation(base: StoredTensors, model: StoredTensors) -> None:
    """Refuses a model whose config asks for another computation than the base's, which the merged folder will have."""
    found = config_differences(base.config, model.config)
    if not found:
        return
    listed = [f"{key} = {theirs!r:.60}, {ours!r:.60} in the base" for key, (ours, theirs) in found.items()]
    further = f" (and {len(listed) - MAX_NAMED} more)" if len(listed) > MAX_NAMED else ""
    raise ValueError(
        f"{model.config_file}: {'; '.join(listed[:MAX_NAMED])}{further}; the models compute differently, so a merge of their "
        f"weights is neither. Merge models of one config only; where a key makes no difference, give it the value of "
        f"{base.config_file}"
    )


def _tokenizer_notes(base: str, models: Sequence[str], theta0: StoredTensors) -> list[str]:
    """Refuses a model of another vocabulary; returns a sentence for each thing that was not compared or differs."""
    known = read_vocabulary(base)  # refuses a damaged file, also one that all have
    others = [model for model in models if not known or not same_tokenizer(base, model)]
    with_tokens = [model for model in others if not is_adapter(model) or read_vocabulary(model)]
    rows = _rows(theta0) if with_tokens else None
    notes = [note for model in with_tokens for note in check_vocabularies(base, model, rows)]
    return notes + [note for model in others for note in rule_notes(base, model)]


def _rows(folder: StoredTensors) -> int | None:
    """Returns the rows of a model's embedding; None where the config does not say."""
    size = setting_of(folder.config, "vocab_size")
    return size if type(size) is int else None
