"""Scores a file of conversations with a model: a JSON line per example on standard output, in the order of the file.

merit score --model=runs/quickstart-text/merged/hf --data=examples/bigbench/hyperbaton.test.jsonl --generate

`log_likelihood` is summed over the assistant's tokens (nats), `tokens` is their count, `completion` the greedy response.
"""

import json
import sys
from collections.abc import Iterator, Sequence

import jax
from absl import flags

from merit_jax.core import sharding
from merit_jax.core.loss import next_token_loss
from merit_jax.core.types import Record
from merit_jax.data.records import read_records
from merit_jax.evaluation.batch_shapes import BatchShapes, doubling_buckets
from merit_jax.evaluation.conversations import likelihoods, responses
from merit_jax.evaluation.decoding import Inference
from merit_jax.evaluation.prompts import stop_tokens
from merit_jax.launch.console import app
from merit_jax.launch.wiring import open_run
from merit_jax.models.pretrained.processor import load_processor

BLOCK = 64
"""Batches that are read before their lines are written."""

FLAGS = flags.FLAGS


def lines(records: Sequence[Record]) -> Iterator[dict]:
    """Yields one dict per record, in order."""
    theta0 = open_run.open_model(FLAGS.model, dtype=FLAGS.dtype, where="--model")
    mesh, (tokenizer, reader) = sharding.make_mesh(), load_processor(theta0.path, theta0.model.config)
    params = sharding.load(theta0.leaves(), sharding.of_params(mesh, theta0.logical_axes, theta0.abstract))
    layout = BatchShapes(
        doubling_buckets(FLAGS.max_length), FLAGS.batch_size, lambda batch: sharding.place_batch(batch, mesh), reader
    )
    loss_fn = jax.jit(next_token_loss(theta0.model))
    inference = Inference(theta0.model, max_new_tokens=FLAGS.max_new_tokens, stop=stop_tokens(tokenizer))
    for start in range(0, len(records), BLOCK * FLAGS.batch_size):
        part = records[start : start + BLOCK * FLAGS.batch_size]
        scores = [score._asdict() for score in likelihoods(loss_fn, params, tokenizer, part, layout, FLAGS.max_length)]
        if FLAGS.generate:
            texts = responses(inference, params, tokenizer, part, layout)
            scores = [{**score, "completion": text} for score, text in zip(scores, texts, strict=True)]
        yield from scores


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("model", None, "Hugging Face folder, .gguf file or name of a shipped model.", required=True)
    flags.DEFINE_string("data", None, "File of records (.jsonl, .json, .parquet).", required=True)
    flags.DEFINE_string(
        "format", None, "Record format: flan, alpaca, sharegpt, messages; left out: detected from the first row."
    )
    flags.DEFINE_bool("generate", False, "Also write the greedy response to each prompt.")
    flags.DEFINE_integer("max_new_tokens", 64, "Tokens of a response.", lower_bound=1)
    flags.DEFINE_integer("max_length", 2048, "Tokens of an example; longer ones are an error.", lower_bound=2)
    flags.DEFINE_integer("batch_size", 8, "Examples per forward pass.", lower_bound=1)
    flags.DEFINE_string("dtype", "auto", 'Of computation: "float32", "bfloat16" or "auto".')


def main(argv: Sequence[str]) -> None:
    """Prints a line per record."""
    for line in lines(read_records(FLAGS.data, FLAGS.format)):
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    app.start(main, define_flags)
