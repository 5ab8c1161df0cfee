"""Writes branches for Axolotl: rows, and a file for `axolotl train`, which lists them."""

from collections.abc import Iterator
from typing import Any

from merit_jax.core.types import Record
from merit_jax.launch.emitting.conversations import first_with, more_than_text
from merit_jax.launch.emitting.hugging_face import (
    OPTIMIZERS,
    batch_split,
    common_notes,
    schedule,
    text_of,
)
from merit_jax.launch.emitting.interface import BranchData, DataFile, Emitter, Settings, as_given, output_folder


def _packs(settings: Settings, data: BranchData) -> bool:
    """Packed examples are kept apart by FlashAttention alone, which needs bfloat16."""
    return settings.bf16


def _length(settings: Settings, *, packed: bool) -> int:
    """Returns the longest sequence: that of a row where rows are packed, else of an example."""
    return settings.row_length if packed else settings.max_length


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
            "sequence_len": _length(settings, packed=packed),
            "excess_length_strategy": "truncate",
            "sample_packing": packed,
            "pad_to_sequence_len": packed,
        },
        "training": _training(settings, packed=packed),
        "output": {
            "output_dir": output_folder(settings.branch),
            "save_strategy": "steps",
            "save_steps": settings.checkpoint_every,
            "save_total_limit": 1,
            "logging_steps": settings.log_every,
        },
    }
    return {"train.yaml": text_of("axolotl train train.yaml, in this folder", sections)}


def _training(settings: Settings, *, packed: bool) -> dict[str, Any]:
    """Returns the keys on optimizer, batches and arithmetic."""
    rows, times = batch_split(settings, packed=packed)
    return {
        "micro_batch_size": rows,
        "gradient_accumulation_steps": times,
        "num_epochs": settings.epochs,
        "optimizer": OPTIMIZERS[settings.optimizer],
        "adam_beta1": settings.b1,
        "adam_beta2": settings.b2,
        "adam_epsilon": settings.eps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler": schedule(settings),
        "warmup_steps": settings.warmup_steps,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.clip_norm,
        "bf16": settings.bf16,
        "fp16": False,
        "tf32": False,
        **({"attn_implementation": "flash_attention_2"} if packed else {}),
        "seed": settings.seed,
    }


def _notes(settings: Settings, data: BranchData) -> Iterator[str]:
    packed = _packs(settings, data)
    yield from common_notes(settings, packed=packed, longest=_length(settings, packed=packed))
    if settings.bf16:
        yield (
            "With `bf16` Axolotl holds the parameters in bfloat16 as well; here they are float32. Small updates are lost to "
            "rounding: compare a branch with one of merit branch, or set `bf16: false`, `sample_packing: false`."
        )
        yield "Packing keeps examples apart with FlashAttention 2 only, which has to be installed (`flash-attn`)."


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
