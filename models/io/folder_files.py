"""Lists the files of a Hugging Face folder that belong to a model besides its weights: they are read, and copied on export."""

import re
from collections.abc import Iterator
from pathlib import Path

from merit_jax.models.io.regular_files import MAX_SETTINGS, check_regular

TEMPLATES = "additional_chat_templates"
_NAMES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "tokenizer.model",
        "spiece.model",
        "sentencepiece.bpe.model",
        "tiktoken.model",
        "tekken.json",
        "chat_template.json",
        "chat_template.jinja",
        "preprocessor_config.json",
        "processor_config.json",
        "video_preprocessor_config.json",
    }
)
_PATTERN = re.compile(
    r"(config|tokenizer)\.[0-9][0-9.]*\.json|[\w.-]+\.tiktoken"
    r"|(LICEN[SC]E|NOTICE|USE_POLICY|COPYING)([_-][\w-]*|[\w.-]*\.(txt|md|rst|pdf|html))?",
    re.IGNORECASE,
)


def is_known(name: str) -> bool:
    """Returns whether a file of this name belongs to a model: config, tokenizer, image processor, template or licence.

    Examples:
        >>> [is_known(name) for name in ("tokenizer.json", "LICENSE.txt", "secrets.json", ".netrc.json", "notes.txt")]
        [True, True, False, False, False]
    """
    return name in _NAMES or _PATTERN.fullmatch(name) is not None


def known_files(folder: Path) -> Iterator[Path]:
    """Yields the files of a folder that belong to a model, sorted; neither weights, code, the README, nor anything else.

    Raises:
        ValueError: One of them is a folder, a pipe, a device, a broken link, or too large.
    """
    found = sorted(file for file in folder.iterdir() if is_known(file.name))
    for file in [*found, *sorted((folder / TEMPLATES).glob("*.jinja"))]:
        check_regular(file, MAX_SETTINGS)
        yield file


def check_inside(folder: Path, file: Path) -> None:
    """Refuses a file that is a link to one outside its folder, except into the store of Hugging Face's cache.

    Raises:
        ValueError: It is, and the file may be private.
    """
    base, real = folder.resolve(), file.resolve()
    cache = base.parents[1] / "blobs" if base.parent.name == "snapshots" else base
    if not real.is_relative_to(base) and not real.is_relative_to(cache):
        raise ValueError(f"{file} is a link to {real}, outside the folder; put the file itself there")
