"""Merges Hugging Face folders of any model, whoever trained them, tensor by tensor.

merit merge --base=DIR --models=DIR1,DIR2 --out=DIR
merit merge --base=DIR --models=DIR1,DIR2,DIR3 --method=ties --options='{"density": 0.2}' --out=DIR
merit merge --base=DIR --models=DIR1,DIR2,DIR3,DIR4 --partition=WORKDIR --out=DIR
merit merge --base=DIR --models=ADAPTER1,ADAPTER2 --out=DIR                           # the whole model
merit merge --base=DIR --models=ADAPTER1,ADAPTER2 --adapter --out=DIR                 # one adapter

A model may be an adapter of PEFT (LoRA, rsLoRA, DoRA) of the base.

With --partition the models are those of a run's branches, trained by any tool, and weigh as their tokens. Config, tokenizer and
types are the base's; arithmetic is float32. Next to the weights come a model card and, where mergekit has the method,
`mergekit.yaml`: the same merge for that tool.
"""

import json
import logging
from collections.abc import Sequence
from typing import Any

from absl import flags

from merit_jax.launch.console import app
from merit_jax.launch.wiring.adapter_rank import check_rank
from merit_jax.launch.wiring.merge_folders import merge_folders
from merit_jax.merging import MERGERS, token_weights
from merit_jax.models.io.folder_writer import MAX_SHARD_BYTES

log = logging.getLogger("merit_jax")

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "base", None, "Model that the others were fine-tuned from: a folder, or OWNER/NAME of the hub.", required=True
    )
    flags.DEFINE_list(
        "models",
        None,
        "The fine-tuned models or their PEFT adapters, folders or OWNER/NAME of the hub, separated by commas.",
        required=True,
    )
    flags.DEFINE_list("weights", None, "A weight for each model, with sum 1; left out: equal weights.")
    flags.DEFINE_string(
        "partition",
        None,
        "In place of --weights: the workdir of `merit partition`, or its `partition.json`. The models are then those of its "
        "branches, in their order, and weigh as the supervised tokens that it counts for each.",
    )
    flags.DEFINE_string(
        "method", "token_weighted", f"One of {', '.join(MERGERS)}; token_weighted is the weighted average."
    )
    flags.DEFINE_string("options", "{}", "Options of the method, a JSON object.")
    flags.DEFINE_multi_string(
        "exclude",
        [],
        "Regular expression over tensor names that stay the base's, as '\\.mlp\\.gate\\.' for routers; may be given again.",
    )
    flags.DEFINE_boolean(
        "adapter", False, "Write one adapter for PEFT in place of a model; of models that are all adapters."
    )
    flags.DEFINE_integer(
        "adapter_rank",
        0,
        "Rank of that adapter, truncated by SVD; what is lost is printed and recorded. 0: the sum of theirs, which is exact.",
        lower_bound=0,
    )
    flags.DEFINE_string("out", None, "Folder to make.", required=True)
    flags.DEFINE_integer(
        "max_shard_bytes", MAX_SHARD_BYTES, "Size of a weight file before a new one is begun.", lower_bound=1
    )


def main(argv: Sequence[str]) -> None:
    """Merges."""
    weights, options, tokens = parse_weights(FLAGS.weights), parse_options(FLAGS.options), None
    if FLAGS.partition is not None:
        from merit_jax.launch.wiring.partition_tokens import tokens_of_models  # loads JAX, as the next does

        tokens = tokens_of_models(FLAGS.partition, FLAGS.models, FLAGS.weights)
        weights = token_weights(tokens).tolist()
    given = (FLAGS.base, FLAGS.models, weights, FLAGS.method, options, FLAGS.out)
    check_rank(FLAGS.adapter, FLAGS.adapter_rank)
    if FLAGS.adapter:
        from merit_jax.launch.wiring.merge_adapters import merge_adapters

        if FLAGS.exclude:
            raise ValueError("--exclude keeps tensors of a model; with --adapter, leave it out")
        merge_adapters(*given, FLAGS.adapter_rank, tokens)
    else:
        merge_folders(*given, FLAGS.max_shard_bytes, tokens, FLAGS.exclude)
    log.info("merged %d models into %s", len(FLAGS.models), FLAGS.out)


def parse_weights(given: Sequence[str] | None) -> list[float] | None:
    """Returns the weights of `--weights`; None if it is left out.

    Raises:
        ValueError: One is no number.

    Examples:
        >>> parse_weights(["0.7", "0.3"])
        [0.7, 0.3]
    """
    if given is None:
        return None
    try:
        return [float(weight) for weight in given]
    except ValueError:
        raise ValueError(f"--weights={','.join(given)}: expected a number for each model, as 0.7,0.3") from None


def parse_options(text: str) -> dict[str, Any]:
    """Returns the options of `--options`.

    Raises:
        ValueError: It is no JSON object.

    Examples:
        >>> parse_options('{"density": 0.2}')
        {'density': 0.2}
    """
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--options={text}: not JSON ({error}); expected an object, as '{{}}'") from None
    if not isinstance(options, dict):
        raise ValueError(f"--options={text}: expected a JSON object, as '{{}}'")
    return options


if __name__ == "__main__":
    app.start(main, define_flags)
