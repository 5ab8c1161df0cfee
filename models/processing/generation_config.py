"""Reads the settings of a checkpoint for the texts that its model reads and writes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from models.io.hf_folder import open_checkpoint, read_json


class Generation(NamedTuple):
    """Limits and ends of a model's texts.

    Attributes:
        context: Most tokens of a text; None if the checkpoint has no limit.
        stop: Ids of the tokens that end a response.
        repetition_penalty: Divisor of the logits of tokens that have occurred, as in transformers; 1 for none.
    """

    context: int | None
    stop: tuple[int, ...]
    repetition_penalty: float


def read_generation(path: str | Path) -> Generation:
    """Reads a folder's generation_config.json and config.json, or a .gguf file's metadata.

    Raises:
        ValueError: There is no such checkpoint, or a file is no JSON object.
    """
    config = open_checkpoint(path).config
    file = Path(path) / "generation_config.json"
    settings = read_json(file) if file.is_file() else {}
    text = config.get("text_config") or {}
    ends = next(_values("eos_token_id", settings, config, text), ())
    return Generation(
        context=next(_values("max_position_embeddings", text, config), None),
        stop=tuple(ends) if isinstance(ends, list) else (ends,) if isinstance(ends, int) else (),
        repetition_penalty=next(_values("repetition_penalty", settings), 1.0),
    )


def _values(key: str, *levels: Mapping[str, Any]) -> Iterator[Any]:
    """Yields the values of a key that are set, in the order of the levels."""
    return (level[key] for level in levels if level.get(key) is not None)
