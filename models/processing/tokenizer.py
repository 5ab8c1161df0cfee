"""Loads tokenizers from a Hugging Face folder, or rebuilds them from GGUF metadata (without PyTorch)."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from models.io.errors import raise_if_of_machine
from models.io.gguf import GGUFFile
from models.processing.gguf_tokenizer import from_gguf, of_file
from models.processing.local_folder import open_tokenizer
from models.processing.tokenizer_trial import try_tokenizer


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a checkpoint, with its chat template, from local files only; runs no code from them.

    Args:
        path: Hugging Face folder or .gguf file.

    Raises:
        ValueError: The folder has no tokenizer, or the GGUF file one that is not byte-level BPE of a known kind.
    """
    path = Path(path)
    if path.suffix == ".gguf":
        return from_gguf(GGUFFile(path).metadata, str(path))
    if not path.is_dir():
        raise ValueError(f"{path}: expected a folder with a tokenizer or a .gguf file")
    try:
        try_tokenizer(path)
        return open_tokenizer(path)
    except BaseException as error:  # tokenizers and transformers fail on damaged files in any way
        if not of_file(error):
            raise
        raise_if_of_machine(error, path)
        raise ValueError(f"{path}: the folder has no tokenizer that can be read: {error}") from None
