"""Merges Hugging Face folders, holding one tensor of each at a time."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from merit_jax.checkpoints import compatibility
from merit_jax.core.progress import bar
from merit_jax.core.registry import lookup
from merit_jax.merging import MERGERS
from merit_jax.merging.mergekit_config import recipe
from merit_jax.merging.model_card import folder_card
from merit_jax.merging.options import resolve_options
from models.io.drafts import check_free
from models.io.folder_writer import MAX_SHARD_BYTES
from models.io.raw_tensors import StoredTensors, check_vocabularies


def merge_folders(
    base: str,
    models: Sequence[str],
    weights: Sequence[float] | None,
    method: str,
    options: Mapping[str, Any],
    out: str,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes the merge of Hugging Face folders, with a model card and, where mergekit has the method, `mergekit.yaml`.

    Args:
        base: Folder of theta0; its config, tokenizer and types are taken over.
        models: Folders of the models that were fine-tuned from it.
        weights: One per model, with sum 1; None: equal.
        method: A key of `MERGERS`.
        options: Options of the method.
        out: Folder to make.
        max_shard_bytes: Size of a weight file before a new one is begun.

    Raises:
        ValueError: A folder is damaged, models differ in tensors, shapes or vocabulary, weights or options are wrong, or
            there are weights (not None) for a method that takes none.
    """
    merger = lookup(MERGERS, method, "method")
    if merger.fisher:
        raise ValueError(
            f"--method={method} needs the training data of each model; use it in launch.run, with --config.merge.method"
        )
    resolved = resolve_options(merger.leaf, options)
    if weights is not None and not merger.weighted(resolved):
        raise ValueError(
            f"--weights make no difference to --method={method} with options {json.dumps(resolved)}; leave them out"
        )
    check_free(Path(out))
    theta0, thetas = open_models(base, models)
    known = weights if weights is not None else [1 / len(models)] * len(models)
    merge = merger.prepare(
        theta0, thetas, known, resolved, linear_maps=theta0.linear_map, stacked_axes=lambda path, spec: 0
    )
    used = merger.used_weights(merge.weights, merge.options)
    yaml = recipe(method, merge.options, base, models, used.values, theta0.dtypes)
    extra = {
        **folder_card(base, models, method, used, merge.options),
        **({} if yaml is None else {"mergekit.yaml": yaml}),
    }
    with bar(len(theta0.paths()), "merge", "tensor") as progress:

        def value(path: str) -> Any:
            progress.update()
            return merge.value(path)

        theta0.export(out, value, extra, max_shard_bytes)


def open_models(base: str, models: Sequence[str]) -> tuple[StoredTensors, list[StoredTensors]]:
    """Opens folders after checking that they hold the same tensors for the same tokens.

    Raises:
        ValueError: They do not, or a folder is given twice.
    """
    folders = [Path(model).resolve() for model in models]
    for k, folder in enumerate(folders):
        if folder in folders[:k]:
            raise ValueError(f"--models has {models[k]} twice; give it once, with the sum of its weights")
    theta0, thetas = StoredTensors(base), [StoredTensors(model) for model in models]
    compatibility.same_tree(theta0.paths(), [theta.paths() for theta in thetas], models)
    for model in models:
        check_vocabularies(base, model)
    return theta0, thetas
