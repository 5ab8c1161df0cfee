"""Writes branches for LLaMA-Factory: rows, `dataset_info.json` and a file for `llamafactory-cli train`."""

import json
from collections.abc import Iterator
from typing import Any

from merit_jax.core.types import Record
from merit_jax.launch.emitting.conversations import (
    first_with,
    image_paths,
    marked,
    marker_in_text,
    more_than_text,
    untrained_turn,
)
from merit_jax.launch.emitting.hugging_face import BEHIND_THE_END, common_notes, saving, text_of, training_arguments
from merit_jax.launch.emitting.interface import BranchData, DataFile, Emitter, Settings, as_given

TEMPLATES = {"qwen2_vl": "qwen2_vl", "qwen2_5_vl": "qwen2_vl", "llava": "llava"}
"""`model_type` of a vision-language model -> name of its template; that of a text model is read from its tokenizer."""

TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
    "observation_tag": "tool",
    "function_tag": "function_call",
}
"""The tags of OpenAI's messages. `formatting: openai` is not used: it adds a system message of its own to every row."""


def _packs(settings: Settings, data: BranchData) -> bool:
    return not settings.parts


def _cutoff(settings: Settings, data: BranchData) -> int:
    """Returns `cutoff_len`.

    Where LLaMA-Factory packs, its rows have one token less, with one of padding; batches are padded to a multiple of 8, for which
    its packed positions have no room.
    """
    return -(-settings.row_length // 8) * 8 if _packs(settings, data) else settings.max_length


def _problems(settings: Settings, data: BranchData) -> Iterator[str]:
    if settings.parts and settings.family not in TEMPLATES:
        yield (
            f"model.path: LLaMA-Factory has no template for the vision-language model {settings.family!r}; it has some for "
            f"{', '.join(TEMPLATES)}"
        )
    if settings.parts and len(settings.frozen) == len(settings.parts):
        yield "train.trainable trains no part of the model"
    yield from first_with(data, more_than_text, untrained_turn, marker_in_text)


def _row(file: DataFile, record: Record, data: BranchData) -> dict[str, Any]:
    row: dict[str, Any] = {"messages": [marked(message) for message in record.messages]}
    return {**row, "images": image_paths(record)} if file.has_images else row


def _dataset_info(data: BranchData) -> dict[str, Any]:
    """Returns the tool's list of datasets."""
    return {
        file.stem: {
            "file_name": file.path,
            "formatting": "sharegpt",
            "columns": {"messages": "messages", **({"images": "images"} if file.has_images else {})},
            "tags": TAGS,
        }
        for file in data.files
    }


def _files(settings: Settings, data: BranchData) -> dict[str, str]:
    packed = _packs(settings, data)
    freezing = {
        "freeze_vision_tower": "vision" in settings.frozen,
        "freeze_multi_modal_projector": "projector" in settings.frozen,
        "freeze_language_model": "decoder" in settings.frozen,
    }
    template = {"template": TEMPLATES[settings.family]} if settings.parts else {}
    packing = {"packing": True, "neat_packing": True} if packed else {"packing": False}
    sections: dict[str, dict[str, Any]] = {
        "model": {"model_name_or_path": settings.model},
        "method": {
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "full",
            **(freezing if settings.parts else {}),
        },
        "data": {
            "dataset": ",".join(file.stem for file in data.files),
            "dataset_dir": ".",
            **template,
            "cutoff_len": _cutoff(settings, data),
            **packing,
            "train_on_prompt": False,
            "mask_history": False,
        },
        "training": training_arguments(settings, packed=packed),
        "output": saving(settings),
    }
    return {
        "dataset_info.json": json.dumps(_dataset_info(data), indent=2, ensure_ascii=False) + "\n",
        "train.yaml": text_of("llamafactory-cli train train.yaml, in this folder", sections),
    }


def _notes(settings: Settings, data: BranchData) -> Iterator[str]:
    packed = _packs(settings, data)
    yield from common_notes(settings, packed=packed, longest=_cutoff(settings, data) - packed)
    yield BEHIND_THE_END
    if settings.parts:
        yield (
            f"LLaMA-Factory writes conversations by its own template `{TEMPLATES[settings.family]}`, not by the model's: "
            "compare the first example that it prints with the model's chat template."
        )
    else:
        yield (
            "`template` is left out, so that LLaMA-Factory reads the chat template from the tokenizer: compare the first "
            "example that it prints."
        )
    if settings.bf16:
        yield "LLaMA-Factory reads theta0 in bfloat16 and trains a float32 copy of it; here it is read in float32."


LLAMAFACTORY = Emitter(
    name="LLaMA-Factory",
    checked="llamafactory 0.9.5",
    command="llamafactory-cli train train.yaml",
    packs=_packs,
    problems=_problems,
    arranged=as_given,
    row=_row,
    files=_files,
    notes=_notes,
)
"""LLaMA-Factory."""
