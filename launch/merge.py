"""Merges Hugging Face folders, whoever trained them and whatever the model, tensor by tensor.

python -m launch.merge --base=DIR --models=DIR1,DIR2 --out=DIR
python -m launch.merge --base=DIR --models=DIR1,DIR2,DIR3 --method=ties --options='{"density": 0.2}' --out=DIR

Config, tokenizer and types are the base's; arithmetic is float32. Beside the weights come a model card and, where mergekit has
the method, `mergekit.yaml`: the same merge for that tool.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from launch.console import app
from merit_jax.checkpoints import compatibility
from merit_jax.core.progress import bar
from merit_jax.core.registry import lookup
from merit_jax.merging import MERGERS
from merit_jax.merging.mergekit_config import recipe
from merit_jax.merging.model_card import folder_card
from merit_jax.merging.options import resolve_options
from models.io.folder_writer import MAX_SHARD_BYTES, check_free
from models.io.raw_tensors import StoredTensors, check_vocabularies

log = logging.getLogger("merit_jax")

FLAGS = flags.FLAGS


def merge_folders(
    base: str,
    models: Sequence[str],
    weights: Sequence[float] | None,
    method: str,
    options: Mapping[str, Any],
    out: str,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes the merge of Hugging Face folders, holding one tensor of each at a time.

    Raises:
        ValueError: A folder is damaged, models differ in tensors, shapes or vocabulary, weights or options are wrong, or
            there are weights (not None) for a method that takes none.
    """
    merger = lookup(MERGERS, method, "method")
    if merger.fisher:
        raise ValueError(f"--method={method} needs the training data of each model; it can be had in launch.run only")
    settings = resolve_options(merger.leaf, options)
    if weights is not None and not merger.weighted(settings):
        raise ValueError(
            f"--weights make no difference to --method={method} with options {json.dumps(settings)}; leave them out"
        )
    check_free(Path(out))
    theta0, thetas = open_models(base, models)
    known = weights if weights is not None else [1 / len(models)] * len(models)
    merge = merger.prepare(theta0, thetas, known, settings, linear_maps=theta0.linear_map)
    yaml = recipe(method, merge.options, base, models, merge.weights, theta0.dtypes)
    extra = {
        **folder_card(base, models, method, merge.weights, merge.options),
        **({} if yaml is None else {"mergekit.yaml": yaml}),
    }
    with bar(len(theta0.paths()), "merge", "tensor") as progress:

        def value(path: str) -> Any:
            progress.update()
            return merge.value(path)

        theta0.export(out, value, extra, max_shard_bytes)


def open_models(base: str, models: Sequence[str]) -> tuple[StoredTensors, list[StoredTensors]]:
    """The folders, after checking that they hold the same tensors for the same tokens.

    Raises:
        ValueError: They do not, or a folder is given twice.
    """
    places = [Path(model).resolve() for model in models]
    for k, place in enumerate(places):
        if place in places[:k]:
            raise ValueError(f"--models has {models[k]} twice; give it once, with the sum of its weights")
    theta0, thetas = StoredTensors(base), [StoredTensors(model) for model in models]
    compatibility.same_tree(theta0.paths(), [theta.paths() for theta in thetas], models)
    for model in models:
        check_vocabularies(base, model)
    return theta0, thetas


def parse_weights(given: Sequence[str] | None) -> list[float] | None:
    """The weights of `--weights`, if it is given.

    Raises:
        ValueError: One is no number.
    """
    if given is None:
        return None
    try:
        return [float(weight) for weight in given]
    except ValueError:
        raise ValueError(f"--weights={','.join(given)}: expected a number for each model, as 0.7,0.3") from None


def parse_options(text: str) -> dict[str, Any]:
    """The options of `--options`.

    Raises:
        ValueError: It is no JSON object.
    """
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--options={text}: not JSON ({error}); expected an object, as '{{}}'") from None
    if not isinstance(options, dict):
        raise ValueError(f"--options={text}: expected a JSON object, as '{{}}'")
    return options


def define_flags() -> None:
    """What the command can be told."""
    flags.DEFINE_string("base", None, "Folder of the model that the others were fine-tuned from.", required=True)
    flags.DEFINE_list("models", None, "Folders of the fine-tuned models, with commas between.", required=True)
    flags.DEFINE_list("weights", None, "A weight for each model, with sum 1; left out: the same for all.")
    flags.DEFINE_string(
        "method", "token_weighted", f"One of {', '.join(MERGERS)}; token_weighted is the weighted average."
    )
    flags.DEFINE_string("options", "{}", "Options of the method, a JSON object.")
    flags.DEFINE_string("out", None, "Folder to make.", required=True)
    flags.DEFINE_integer("max_shard_bytes", MAX_SHARD_BYTES, "Size of a weight file before a new one.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """Merges."""
    weights, options = parse_weights(FLAGS.weights), parse_options(FLAGS.options)
    merge_folders(FLAGS.base, FLAGS.models, weights, FLAGS.method, options, FLAGS.out, FLAGS.max_shard_bytes)
    log.info("merged %d models into %s", len(FLAGS.models), FLAGS.out)


if __name__ == "__main__":
    app.start(main, define_flags)
