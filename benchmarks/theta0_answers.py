"""theta0's own answers to general prompts, as record files: what a model still says of them is what it has retained.

`general_prompts.yaml` has prompts of four kinds, written for this purpose, none of which is a task of the mixture. theta0 answers
each greedily. The answers of a kind are a suite, `theta0_KIND`, of ordinary records (prompt, answer), to be scored by
`evaluate.agreement`: the share of the answers' tokens that are a model's likeliest, and their likelihood. An answer that theta0
does not end within its room is left out, since whoever wrote the record's end would not be theta0.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from etils import epath

from merit_jax.core.types import Record
from merit_jax.evaluation.decoding import Inference
from merit_jax.evaluation.prompts import prompt, stop_tokens
from merit_jax.evaluation.scoring import completions
from merit_jax.pipeline.evaluators import batch_shapes
from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifacts import is_current, plain, read_json, write_json, write_text

PROMPTS = Path(__file__).with_name("general_prompts.yaml")
"""Kind -> prompts."""

PREFIX = "theta0_"
"""Beginning of the suites' names, by which a config tells them from those of skills."""

LEAST = 2
"""Answers that a kind must have, so that its suite can be halved."""


def read_prompts(path: Path = PROMPTS) -> dict[str, list[str]]:
    """Reads a file of prompts.

    Raises:
        ValueError: It is no mapping from kinds to lists of texts.
    """
    found = yaml.safe_load(path.read_text())
    if not isinstance(found, dict) or not all(
        isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts) for texts in found.values()
    ):
        raise ValueError(f"{path}: expected a mapping from kinds to lists of prompts, as in {PROMPTS}")
    return found


def write_answers(
    run: Run, folder: epath.Path, prompts: Mapping[str, Sequence[str]], max_new_tokens: int
) -> Mapping[str, Any]:
    """Writes theta0's answers, one file `theta0_KIND.jsonl` for each kind, and their record `answers.json`.

    Answers that are there, of the same theta0 to the same prompts, are left alone.

    Args:
        run: Any run of theta0.
        folder: Where the files are written.
        prompts: Kind -> prompts.
        max_new_tokens: Room for an answer, in tokens.

    Returns:
        The record: `inputs`, and for each kind the prompts that were asked, the answers, and their tokens.

    Raises:
        ValueError: The folder has answers of another theta0 or to other prompts, or theta0 ends too few answers of a kind.
    """
    path = folder / "answers.json"
    inputs = {
        "theta0": run.theta0_fingerprint,
        "tokenizer": run.text_inputs["tokenizer"],
        "prompts": {kind: list(texts) for kind, texts in prompts.items()},
        "max_new_tokens": max_new_tokens,
    }
    if not is_current(path, inputs, overwrite=False):
        answers = _answers(run, prompts, max_new_tokens)
        for kind, found in answers.items():
            rows = [{"inputs": asked, "targets": text} for asked, text, _ in found]
            write_text(folder / f"{PREFIX}{kind}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        counts = {
            kind: {"asked": len(prompts[kind]), "answered": len(found), "tokens": sum(count for *_, count in found)}
            for kind, found in answers.items()
        }
        write_json(path, {"inputs": plain(inputs), "answers": counts, "dtype": str(run.theta0.dtype)})
    return read_json(path)


def _answers(
    run: Run, prompts: Mapping[str, Sequence[str]], max_new_tokens: int
) -> dict[str, list[tuple[str, str, int]]]:
    """Returns kind -> (prompt, answer, tokens of the answer) of the answers that theta0 ends."""
    asked = [(kind, text) for kind, texts in prompts.items() for text in texts]
    inference = Inference(run.model, max_new_tokens=max_new_tokens, stop=stop_tokens(run.tokenizer))
    questions = [
        prompt(
            run.tokenizer, Record(({"role": "user", "content": text}, {"role": "assistant", "content": ""}), None, text)
        )
        for _, text in asked
    ]
    written = completions(inference, run.params, questions, batch_shapes(run))
    found: dict[str, list[tuple[str, str, int]]] = {kind: [] for kind in prompts}
    for (kind, text), ids in zip(asked, written, strict=True):
        answer = run.tokenizer.decode(ids, skip_special_tokens=True).strip()
        if answer and len(ids) < max_new_tokens:
            found[kind].append((text, answer, len(ids)))
    if short := [kind for kind, answers in found.items() if len(answers) < LEAST]:
        raise ValueError(
            f"theta0 ends fewer than {LEAST} of its answers to the prompts of kind {', '.join(short)} within {max_new_tokens} "
            "tokens; raise --answer_tokens, or is this theta0 no instruction model?"
        )
    return found
