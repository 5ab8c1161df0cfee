"""Scores a file of conversations with a model: a JSON line per example on standard output, in the order of the file.

python -m launch.score --model=runs/quickstart/merged/hf --data=examples/bigbench/hyperbaton.test.jsonl --generate

`log_likelihood` is summed over the assistant's tokens (nats), `tokens` is their count, `completion` the greedy response.
"""

import json
import sys
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from absl import flags

from launch import cli, wire
from merit_jax import sharding
from merit_jax.data.batching import bucketed_batches
from merit_jax.data.chat import encode, encode_prompt
from merit_jax.data.mixture import read_records
from merit_jax.evaluate.inference import Inference
from merit_jax.evaluate.scores import completions
from merit_jax.loss import next_token_loss
from merit_jax.stages.evaluate import stop_tokens
from merit_jax.types import Record
from models.tokenizer import load_tokenizer

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "Hugging Face folder, .gguf file or name of a shipped model.", required=True)
flags.DEFINE_string("data", None, "File of records (.jsonl, .json, .parquet).", required=True)
flags.DEFINE_string(
    "format", None, "Record format: flan, alpaca, sharegpt, messages; left out: seen from the first row."
)
flags.DEFINE_bool("generate", False, "Also write the greedy response to each prompt.")
flags.DEFINE_integer("max_new_tokens", 64, "Tokens of a response.", lower_bound=1)
flags.DEFINE_integer("max_length", 2048, "Tokens of an example; longer ones are an error.", lower_bound=2)
flags.DEFINE_integer("batch_size", 8, "Examples per forward pass.", lower_bound=1)
flags.DEFINE_string("dtype", "auto", 'Of computation: "float32", "bfloat16" or "auto".')


def buckets(max_length: int) -> tuple[int, ...]:
    """Padded lengths: powers of two from 64 to at least `max_length`."""
    return tuple(2**k for k in range(6, max(6, (max_length - 1).bit_length()) + 1))


class Scorer:
    """A model on the devices, with its tokenizer."""

    def __init__(self, path: str, *, dtype: str, batch_size: int, max_length: int, max_new_tokens: int) -> None:
        theta0 = wire.open_model(path, dtype=dtype)
        mesh = sharding.make_mesh()
        self._tokenizer, self._sizes, self._batch_size = load_tokenizer(theta0.path), buckets(max_length), batch_size
        self._max_length = max_length
        self._place = lambda batch: sharding.place_batch(batch, mesh)
        self._params = sharding.load(theta0.leaves(), sharding.of_params(mesh, theta0.logical_axes, theta0.abstract))
        self._loss = jax.jit(next_token_loss(theta0.model))
        self._inference = Inference(
            theta0.model, room=max_new_tokens, stop=stop_tokens(self._tokenizer), place=self._place
        )

    def likelihoods(self, records: Sequence[Record]) -> list[tuple[float, int]]:
        """(log-likelihood in nats, tokens) of the assistant's turns of each record."""
        examples = []
        for record in records:
            example, cut = encode(self._tokenizer, record.messages, self._max_length, where=record.where)
            if cut:
                raise ValueError(f"{record.where}: longer than {self._max_length} tokens; raise --max_length")
            examples.append(example)
        scores = [(0.0, 0)] * len(records)
        for indices, batch in bucketed_batches(examples, buckets=self._sizes, batch_size=self._batch_size):
            nll, tokens = map(np.asarray, self._loss(self._params, self._place(batch)))
            for row, index in enumerate(indices):
                if index >= 0:
                    scores[index] = (-float(nll[row]), int(tokens[row]))
        return scores

    def completions(self, records: Sequence[Record]) -> list[str]:
        """The greedy response to each record's prompt."""
        prompts = [encode_prompt(self._tokenizer, r.messages[:-1], where=r.where) for r in records]
        written = completions(self._inference, self._params, prompts, self._sizes, self._batch_size)
        return [self._tokenizer.decode(ids, skip_special_tokens=True) for ids in written]


def lines(scorer: Scorer, records: Sequence[Record], *, generate: bool, block: int) -> Iterator[dict]:
    """One dict per record, in order, a block of records at a time."""
    for start in range(0, len(records), block):
        part = records[start : start + block]
        texts = scorer.completions(part) if generate else [None] * len(part)
        for (log_likelihood, tokens), text in zip(scorer.likelihoods(part), texts, strict=True):
            yield {"log_likelihood": log_likelihood, "tokens": tokens} | ({"completion": text} if generate else {})


def main(argv: Sequence[str]) -> None:
    """Prints the lines."""
    records = read_records(FLAGS.data, FLAGS.format)
    scorer = Scorer(
        FLAGS.model,
        dtype=FLAGS.dtype,
        batch_size=FLAGS.batch_size,
        max_length=FLAGS.max_length,
        max_new_tokens=FLAGS.max_new_tokens,
    )
    for line in lines(scorer, records, generate=FLAGS.generate, block=64 * FLAGS.batch_size):
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    cli.start(main)
