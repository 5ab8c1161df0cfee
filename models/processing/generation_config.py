"""Reads and writes the settings of a checkpoint for the texts that its model reads and writes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from merit_jax.models.io.checkpoint import open_checkpoint
from merit_jax.models.io.folder_writer import write_json
from merit_jax.models.io.hf_folder import read_json

FILE = "generation_config.json"


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
    file = Path(path) / FILE
    settings = read_json(file) if file.is_file() else {}
    text = config.get("text_config") or {}
    return Generation(
        context=next(_values("max_position_embeddings", text, config), None),
        stop=_ends(settings, config, text),
        repetition_penalty=next(_values("repetition_penalty", settings), 1.0),
    )


def add_ends(folder: Path, stop: Sequence[int]) -> None:
    """Lets the texts of a folder's model end at further tokens too, behind those that its settings name.

    Args:
        folder: Hugging Face folder; its generation_config.json is written, where a token is missing there.
        stop: Ids of the tokens.
    """
    settings = read_json(folder / FILE) if (folder / FILE).is_file() else None
    config = read_json(folder / "config.json")
    levels = [config, config.get("text_config") or {}]
    ends = _ends(*([] if settings is None else [settings]), *levels)
    if set(stop) <= set(_ends(settings) if settings else ()):
        return
    if settings is None:  # without the file, transformers takes these from config.json
        settings = {key: value for key in ("bos_token_id", "pad_token_id") for value in _values(key, *levels)}
    both = list(dict.fromkeys([*ends, *stop]))
    write_json(folder / FILE, {**settings, "eos_token_id": both if len(both) > 1 else both[0]})


def _ends(*levels: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the ids of the first level that names any."""
    ends = next(_values("eos_token_id", *levels), ())
    return tuple(ends) if isinstance(ends, list) else (ends,) if isinstance(ends, int) else ()


def _values(key: str, *levels: Mapping[str, Any]) -> Iterator[Any]:
    """Yields the values of a key that are set, in the order of the levels."""
    return (level[key] for level in levels if level.get(key) is not None)
