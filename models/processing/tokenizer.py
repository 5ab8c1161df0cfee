"""Loads tokenizers from a Hugging Face folder, or rebuilds them from GGUF metadata (without PyTorch)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from merit_jax.models.io.errors import raise_if_of_machine
from merit_jax.models.io.gguf import GGUFFile
from merit_jax.models.io.hf_folder import read_json
from merit_jax.models.processing.local_folder import open_tokenizer
from merit_jax.models.processing.tokenizer_trial import try_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer
else:  # transformers is imported where a tokenizer is opened: it takes a second, and with PyTorch beside it several
    Tokenizer = Any


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Loads the tokenizer of a checkpoint, with its chat template, from local files only; runs no code from them.

    Args:
        path: Hugging Face folder or .gguf file.

    Raises:
        ValueError: The folder has no tokenizer, or the GGUF file one that is not byte-level BPE of a known kind.
    """
    from merit_jax.models.processing.gguf_tokenizer import from_gguf, of_file

    path = Path(path)
    if path.suffix == ".gguf":
        return from_gguf(GGUFFile(path).metadata, str(path))
    if not path.is_dir():
        raise ValueError(f"{path}: expected a folder with a tokenizer or a .gguf file")
    try:
        try_tokenizer(path)
        tokenizer = open_tokenizer(path)
    except BaseException as error:  # tokenizers and transformers fail on damaged files in any way
        if not of_file(error):
            raise
        raise_if_of_machine(error, path)
        raise ValueError(f"{path}: the folder has no tokenizer that can be read: {error}") from None
    if tokenizer.chat_template is None:
        tokenizer.chat_template = _processor_template(path)
    return tokenizer


def _processor_template(path: Path) -> str | dict[str, str] | None:
    """Returns the chat template that a folder has in a file of its processor alone, as LLaVA's and Qwen2-VL's have."""
    for name in ("chat_template.json", "processor_config.json"):
        template = read_json(path / name).get("chat_template") if (path / name).is_file() else None
        texts = list(template.values()) if isinstance(template, dict) else [template]
        if template is None:
            continue
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{path / name}: chat_template = {template!r:.60}: expected a text, or texts by name")
        return template
    return None
