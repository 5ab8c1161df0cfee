"""Writes the settings that the trainers on top of Hugging Face's have in common, and YAML files with comments."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from merit_jax.launch.emitting.interface import Settings, output_folder

OPTIMIZERS = {"adamw": "adamw_torch", "lion": "lion_32bit", "sgd": "sgd"}
"""Name here -> `optim` of Hugging Face's trainer."""

BEHIND_THE_END = (
    "What the chat template writes after the end of a response (a line break in ChatML) is trained too; here the end of the turn "
    "is the last token that counts."
)
"""Note on the tools that count as a response all that is rendered behind its prompt."""


PACKED_APART = "Packing keeps examples apart with FlashAttention 2 only, which has to be installed (`flash-attn`)."
"""Note on the tools that pack with it."""


def longest_sequence(settings: Settings, *, packed: bool) -> int:
    """Returns the tokens of the longest sequence: those of a row where rows are packed, else of an example."""
    return settings.row_length if packed else settings.max_length


def schedule(settings: Settings) -> str:
    """Returns Hugging Face's name of the learning rate's schedule."""
    constant = "constant_with_warmup" if settings.warmup_steps else "constant"
    return {"cosine": "cosine", "linear": "linear", "constant": constant}[settings.schedule]


def batch_split(settings: Settings, *, packed: bool) -> tuple[int, int]:
    """Returns (rows at a time, times that gradients are accumulated) of a step on one GPU.

    Examples that are not packed come one at a time, so that a batch never mixes rows with images and rows without.
    """
    if not packed:
        return 1, settings.batch_examples
    return settings.batch // settings.micro_batches, settings.micro_batches


def training_arguments(settings: Settings, *, packed: bool) -> dict[str, Any]:
    """Returns the fields of `transformers.TrainingArguments` for a branch."""
    rows, times = batch_split(settings, packed=packed)
    return {
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": times,
        "num_train_epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": schedule(settings),
        "warmup_steps": settings.warmup_steps,
        "optim": OPTIMIZERS[settings.optimizer],
        "adam_beta1": settings.b1,
        "adam_beta2": settings.b2,
        "adam_epsilon": settings.eps,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.clip_norm,
        "bf16": settings.bf16,
        "seed": settings.seed,
    }


def saving(settings: Settings) -> dict[str, Any]:
    """Returns the fields of `transformers.TrainingArguments` on what is saved and logged."""
    return {
        "output_dir": output_folder(settings.branch),
        "save_strategy": "steps",
        "save_steps": settings.checkpoint_every,
        "save_total_limit": 1,
        "logging_steps": settings.log_every,
        "report_to": "none",
    }


def common_notes(settings: Settings, *, packed: bool, longest: int) -> Iterator[str]:
    """Yields what every trainer on top of Hugging Face's does differently; examples are cut behind `longest` tokens."""
    rows, times = batch_split(settings, packed=packed)
    yield (
        f"A step has {rows} x {times} rows on one GPU. On N GPUs divide `gradient_accumulation_steps` by N, so that a step "
        "stays the same."
    )
    if packed:
        yield "Rows are packed by the tool's own plan: the number of steps may differ a little from the one planned here."
    else:
        yield (
            f"Rows are not packed: a step has {settings.batch_examples} examples, as many as its packed rows hold here on "
            "average."
        )
    if longest != settings.max_length:
        yield f"An example is cut behind {longest} tokens; here behind {settings.max_length}."
    yield "The data order is drawn by the tool from `seed`, which is each branch's own; it is not the order of merit run."
    if settings.warmup_steps:
        yield "The first step of the warm-up has a learning rate of 0; here it has the first part of the rise."


def text_of(head: str, sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a YAML file with comments: one at the head, and one for each section."""
    lines = [f"# {line}" for line in head.splitlines()]
    for title, content in sections.items():
        dumped = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=1000).rstrip("\n")
        lines += ["", f"# {title}", dumped]
    return "\n".join(lines) + "\n"
