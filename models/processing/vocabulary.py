"""The tokens of a Hugging Face folder by id, read from its tokenizer's files, and their comparison between folders.

The files are read as data: no tokenizer is built, which for files from elsewhere may fail in any way.
"""

import filecmp
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from merit_jax.models.io.hf_folder import read_json

Vocabulary = dict[int, str]
"""Id -> token."""


def check_vocabularies(base: str | Path, other: str | Path, rows: int | None = None) -> list[str]:
    """Refuses a model in which a row of the embedding belongs to another token than in the base.

    The merged folder has the base's tokenizer, so a token that only the model has would be lost, and its row be mixed with rows
    that no text of the base's reaches.

    Args:
        base: Folder.
        other: Folder of the model.
        rows: Rows of the embedding; tokens with larger ids have none. None if unknown.

    Returns:
        A sentence for each thing that was not or not fully compared.

    Raises:
        ValueError: They differ, or a tokenizer's file is damaged.
    """
    ours, theirs = read_vocabulary(base), read_vocabulary(other)
    if not ours or not theirs:
        without = [folder for folder, found in ((base, ours), (other, theirs)) if not found]
        return [f"{folder}: no tokenizer that can be read; its tokens are not compared" for folder in without]
    same_vocabulary(ours, theirs, str(base), str(other), "merge models of one tokenizer only")
    inside = [n for n in sorted(ours.keys() ^ theirs.keys()) if rows is None or n < rows]
    added, lost = [n for n in inside if n in theirs], [n for n in inside if n in ours]
    if added:
        raise ValueError(
            f"the vocabulary of {other} is not that of {base}: id {added[0]} is {theirs[added[0]]!r} there and no token "
            f"here{_more(added)}; the merged model would have the base's tokenizer, without it: put the tokenizer's files of "
            f"{other} into {base} if the models share them"
        )
    if not lost:
        return []
    return [
        f"the tokenizer of {other} lacks id {lost[0]}, {ours[lost[0]]!r}, of {base}{_more(lost)}; its row in {other} enters "
        "the merge as it is"
    ]


def same_tokenizer(base: str | Path, other: str | Path) -> bool:
    """Returns whether two folders have the same tokenizer's files to the byte, at least one; nothing in them is parsed.

    Raises:
        OSError: One cannot be read.
    """
    pairs = [(Path(base) / name, Path(other) / name) for name in (*_TOKENIZERS, *_ADDED)]
    there = [(ours, theirs) for ours, theirs in pairs if ours.is_file() or theirs.is_file()]
    return bool(there) and all(
        ours.is_file() and theirs.is_file() and filecmp.cmp(ours, theirs, shallow=False) for ours, theirs in there
    )


def rule_notes(base: str | Path, other: str | Path) -> list[str]:
    """Returns a sentence where the tokenizers of two folders part texts by other rules, though their tokens are the same."""
    files = [Path(folder) / "tokenizer.json" for folder in (base, other)]
    if not all(file.is_file() for file in files):
        return []
    ours, theirs = map(_rules, map(read_json, files))
    changed = [name for name in ours if ours[name] != theirs[name]]
    if not changed:
        return []
    return [
        f"{files[1]}: other {', '.join(changed)} than in {files[0]}, so the model was trained on other tokens of the same text; "
        "the merged folder has the base's"
    ]


def _rules(content: Mapping[str, Any]) -> dict[str, Any]:
    model = content.get("model")
    model = model if isinstance(model, Mapping) else {}
    merges = model.get("merges") or []
    rules = {name: content.get(name) for name in ("normalizer", "pre_tokenizer", "post_processor")}
    spelt = [" ".join(map(str, pair)) if isinstance(pair, list) else pair for pair in merges]
    return {**rules, "merges": spelt, "model": model.get("type")}


def same_vocabulary(ours: Mapping[int, str], theirs: Mapping[int, str], base: str, other: str, remedy: str) -> None:
    """Refuses two vocabularies, id -> token, in which an id has different tokens."""
    for number in sorted(ours.keys() & theirs.keys()):
        if ours[number] != theirs[number]:
            raise ValueError(
                f"the vocabulary of {other} is not that of {base}: id {number} is {theirs[number]!r} there and "
                f"{ours[number]!r} here; {remedy}"
            )


def read_vocabulary(folder: str | Path) -> Vocabulary:
    """Reads the tokens of a folder's tokenizer; empty where there is none of a kind that is known.

    Raises:
        ValueError: A file of it is damaged.
    """
    found: Vocabulary = {}
    for name, read in _TOKENIZERS.items():
        if not found and (Path(folder) / name).is_file():
            found = _checked(Path(folder) / name, read)
    for name, read in _ADDED.items():
        if found and (Path(folder) / name).is_file():
            found = {**_checked(Path(folder) / name, read), **found}
    return found


def _checked(file: Path, read: Callable[[Path], Vocabulary]) -> Vocabulary:
    """Returns what a file says, if it is ids and tokens."""
    try:
        found = read(file)
        if not all(type(n) is int and isinstance(token, str) for n, token in found.items()):
            raise TypeError("an id is no whole number, or a token no text")
        return found
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise ValueError(f"{file}: expected a tokenizer with a vocabulary ({error!r:.300})") from None


def _tokenizer_json(file: Path) -> Vocabulary:
    content = read_json(file)
    vocabulary = content["model"]["vocab"]
    listed = isinstance(vocabulary, list)  # of pairs of token and score; else token -> id
    found = dict(enumerate(row[0] for row in vocabulary) if listed else _by_id(vocabulary))
    return found | {token["id"]: token["content"] for token in content.get("added_tokens", ())}


def _sentencepiece(file: Path) -> Vocabulary:
    from google.protobuf.message import DecodeError
    from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

    content: Any = vars(sentencepiece)["ModelProto"]()  # protobuf puts it there when it is imported
    try:
        content.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise ValueError(str(error)) from None
    return dict(enumerate(piece.piece for piece in content.pieces))


def _added_tokens_decoder(file: Path) -> Vocabulary:
    decoder = read_json(file).get("added_tokens_decoder") or {}
    return {int(number): token["content"] for number, token in decoder.items()}


def _by_id(vocabulary: Mapping[str, Any]) -> Vocabulary:
    return {number: token for token, number in vocabulary.items()}


_TOKENIZERS: dict[str, Callable[[Path], Vocabulary]] = {
    "tokenizer.json": _tokenizer_json,
    "tokenizer.model": _sentencepiece,
    "vocab.json": lambda file: _by_id(read_json(file)),
    "vocab.txt": lambda file: dict(enumerate(file.read_text(encoding="utf-8").splitlines())),
}
"""File -> its reader; the first that is there counts."""

_ADDED: dict[str, Callable[[Path], Vocabulary]] = {
    "added_tokens.json": lambda file: _by_id(read_json(file)),
    "tokenizer_config.json": _added_tokens_decoder,
}
"""Files that add tokens to those of the tokenizer's own."""


def _more(numbers: list[int]) -> str:
    return f" (and {len(numbers) - 1} more)" if len(numbers) > 1 else ""
