"""Writes branches for TRL: rows, and a file for `trl sft --config`, which lists them."""

from collections.abc import Iterator
from typing import Any

from merit_jax.core.types import Record
from merit_jax.launch.emitting.conversations import first_with, image_paths, in_parts, more_than_text, untrained_turn
from merit_jax.launch.emitting.hugging_face import (
    BEHIND_THE_END,
    PACKED_APART,
    common_notes,
    longest_sequence,
    saving,
    text_of,
    training_arguments,
)
from merit_jax.launch.emitting.interface import BranchData, DataFile, Emitter, Settings


def _packs(settings: Settings, data: BranchData) -> bool:
    """Packed examples are kept apart by FlashAttention alone, which needs bfloat16."""
    return settings.bf16 and not settings.parts


def _problems(settings: Settings, data: BranchData) -> Iterator[str]:
    if settings.frozen:
        yield (
            f"train.trainable freezes {' and '.join(settings.frozen)}, and TRL's config trains all parameters; train all, or "
            "use another tool"
        )
    findings = (more_than_text,) if data.one_response else (more_than_text, untrained_turn)
    yield from first_with(data, *findings)


def _arranged(data: BranchData) -> BranchData:
    """Puts rows with images and rows without into one file, one with an image first, which decides the types of its columns.

    The library `datasets` does not join a file in which all lists of images are empty with one in which they are not.
    """
    if not data.has_images:
        return data
    records = [record for file in data.files for record in file.records]
    first = next(place for place, record in enumerate(records) if image_paths(record))
    joined = DataFile("all datasets", "rows", [records[first], *records[:first], *records[first + 1 :]])
    return data._replace(files=(joined,))


def _row(file: DataFile, record: Record, data: BranchData) -> dict[str, Any]:
    def shown(message: Any) -> dict[str, Any]:
        return in_parts(message) if data.has_images else {"role": message["role"], "content": message["content"]}

    messages = [shown(message) for message in record.messages]
    images = {"images": image_paths(record)} if data.has_images else {}
    if data.one_response:
        return {"prompt": messages[:-1], "completion": messages[-1:], **images}
    return {"messages": messages, **images}


def _files(settings: Settings, data: BranchData) -> dict[str, str]:
    packed = _packs(settings, data)
    sections: dict[str, dict[str, Any]] = {
        "model": {
            "model_name_or_path": settings.model,
            "dtype": "float32",
            **({"attn_implementation": "flash_attention_2"} if packed else {}),
        },
        "data": {
            "datasets": [{"path": "json", "data_files": file.path, "split": "train"} for file in data.files],
            "max_length": longest_sequence(settings, packed=packed),
            "packing": packed,
            **({"packing_strategy": "bfd"} if packed else {}),
            **({"completion_only_loss": True} if data.one_response else {"assistant_only_loss": True}),
        },
        "training": training_arguments(settings, packed=packed),
        "output": saving(settings),
    }
    return {"train.yaml": text_of("trl sft --config train.yaml, in this folder", sections)}


def _notes(settings: Settings, data: BranchData) -> Iterator[str]:
    packed = _packs(settings, data)
    yield from common_notes(settings, packed=packed, longest=longest_sequence(settings, packed=packed))
    if packed:
        yield PACKED_APART
    yield BEHIND_THE_END
    if not data.one_response:
        yield (
            "Rows have several responses, so the loss counts the assistant's turns (`assistant_only_loss`): the model's chat "
            "template needs `{% generation %}`, or has to be one for which TRL has such a form."
        )


TRL = Emitter(
    name="TRL",
    checked="trl 1.16.0",
    command="trl sft --config train.yaml",
    packs=_packs,
    problems=_problems,
    arranged=_arranged,
    row=_row,
    files=_files,
    notes=_notes,
)
"""TRL's `trl sft`."""
