"""Writes branches for Axolotl: rows, and a file for `axolotl train`, which lists them."""

from collections.abc import Iterator
from typing import Any

from merit_jax.core.types import Record
from merit_jax.launch.emitting.conversations import first_with, more_than_text
from merit_jax.launch.emitting.hugging_face import (
    PACKED_APART,
    common_notes,
    longest_sequence,
    saving,
    text_of,
    training_arguments,
)
from merit_jax.launch.emitting.interface import BranchData, DataFile, Emitter, Settings, as_given

NAMES = {
    "per_device_train_batch_size": "micro_batch_size",
    "num_train_epochs": "num_epochs",
    "optim": "optimizer",
    "lr_scheduler_type": "lr_scheduler",
}
"""Field of `transformers.TrainingArguments` -> what Axolotl calls it; other fields have the same name."""


def _packs(settings: Settings, data: BranchData) -> bool:
    """Packed examples are kept apart by FlashAttention alone, which needs bfloat16."""
    return settings.bf16


def _problems(settings: Settings, data: BranchData) -> Iterator[str]:
    if settings.parts:
        yield (
            f"model.path: a vision-language model ({settings.family}) is not written for Axolotl, whose loss on images counts "
            "the prompts too unless its role_boundaries are set by hand; use another tool"
        )
    yield from first_with(data, more_than_text)


def _row(file: DataFile, record: Record, data: BranchData) -> dict[str, Any]:
    return {
        "messages": [
            {"role": message["role"], "content": message["content"], "train": _is_trained(message)}
            for message in record.messages
        ]
    }


def _is_trained(message: Any) -> bool:
    return message["role"] == "assistant" and message.get("train", True)


def _files(settings: Settings, data: BranchData) -> dict[str, str]:
    packed = _packs(settings, data)
    own_end = settings.end_of_turn not in ("", settings.eos)
    lists = [
        {
            "path": file.path,
            "ds_type": "json",
            "type": "chat_template",
            "field_messages": "messages",
            "message_field_training": "train",
            "roles_to_train": ["assistant"],
            "train_on_eos": "turn",
        }
        for file in data.files
    ]
    sections: dict[str, dict[str, Any]] = {
        "model": {"base_model": settings.model, "chat_template": "tokenizer_default"},
        "data": {
            **({"eot_tokens": [settings.end_of_turn]} if own_end else {}),
            "datasets": lists,
            "dataset_prepared_path": "prepared",
            "val_set_size": 0.0,
            "train_on_inputs": False,
            "sequence_len": longest_sequence(settings, packed=packed),
            "excess_length_strategy": "truncate",
            "sample_packing": packed,
            "pad_to_sequence_len": packed,
        },
        "training": _training(settings, packed=packed),
        "output": {key: value for key, value in saving(settings).items() if key != "report_to"},
    }
    return {"train.yaml": text_of("axolotl train train.yaml, in this folder", sections)}


def _training(settings: Settings, *, packed: bool) -> dict[str, Any]:
    """Returns the keys on optimizer, batches and arithmetic."""
    fields = {NAMES.get(key, key): value for key, value in training_arguments(settings, packed=packed).items()}
    attention = {"attn_implementation": "flash_attention_2"} if packed else {}
    return {**fields, "fp16": False, "tf32": False, **attention}


def _notes(settings: Settings, data: BranchData) -> Iterator[str]:
    packed = _packs(settings, data)
    yield from common_notes(settings, packed=packed, longest=longest_sequence(settings, packed=packed))
    if settings.bf16:
        yield (
            "With `bf16` Axolotl holds the parameters in bfloat16 as well; here they are float32. Small updates are lost to "
            "rounding: compare a branch with one of merit branch, or set `bf16: false`, `sample_packing: false`."
        )
        yield PACKED_APART


AXOLOTL = Emitter(
    name="Axolotl",
    checked="axolotl 0.19.0",
    command="axolotl train train.yaml",
    packs=_packs,
    problems=_problems,
    arranged=as_given,
    row=_row,
    files=_files,
    notes=_notes,
)
"""Axolotl."""
