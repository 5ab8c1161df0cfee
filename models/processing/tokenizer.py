"""Loads tokenizers from a Hugging Face folder, or rebuilds them from GGUF metadata (without PyTorch)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Split
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from models.io.gguf import GGUFFile
from models.io.hf_folder import read_json

_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTROL, _USER_DEFINED = 3, 4
_SPECIALS = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}


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
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except BaseException as error:  # tokenizers and transformers fail on damaged files in any way
        if not _of_file(error):
            raise
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


def from_gguf(metadata: Mapping[str, Any], where: str) -> PreTrainedTokenizerBase:
    """Rebuilds a byte-level BPE tokenizer from GGUF metadata.

    Args:
        metadata: GGUF key -> value.
        where: The file, for error messages.

    Raises:
        ValueError: The tokenizer is of an unknown kind, or a key is missing.
    """
    kind, split = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if kind != "gpt2" or not isinstance(split, str) or split not in SPLITS:
        raise ValueError(
            f"{where}: tokenizer {kind!r} with pre-tokenizer {split!r} is not supported; expected 'gpt2' with one of "
            f"{', '.join(SPLITS)}; use the Hugging Face folder of the model instead"
        )
    for key in ("tokens", "merges", "token_type"):
        if f"tokenizer.ggml.{key}" not in metadata:
            raise ValueError(f"{where}: metadata key tokenizer.ggml.{key} is missing")
    try:
        return _rebuilt(metadata, SPLITS[split])
    except BaseException as error:  # a list of the wrong kind or length, an id beyond the tokens, ...
        if not _of_file(error):
            raise
        raise ValueError(f"{where}: the tokenizer is damaged ({type(error).__name__}: {error})") from None


def _of_file(error: BaseException) -> bool:
    """Returns whether an error can come from a damaged file; a panic of the tokenizers' Rust code is no Exception."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _rebuilt(metadata: Mapping[str, Any], split: list[PreTokenizer]) -> PreTrainedTokenizerBase:
    tokens = metadata["tokenizer.ggml.tokens"]
    backend = _backend(tokens, metadata["tokenizer.ggml.merges"], split)
    _add_whole_tokens(backend, tokens, metadata["tokenizer.ggml.token_type"])
    ids = {name: metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in _SPECIALS.items()}
    specials = {name: tokens[number] for name, number in ids.items() if number is not None}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=metadata.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        model_max_length=metadata.get(f"{metadata.get('general.architecture')}.context_length"),
        **specials,
    )


def _smollm() -> list[PreTokenizer]:
    return [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]


def _regex(pattern: str) -> list[PreTokenizer]:
    return [Split(Regex(pattern), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]


SPLITS = {"smollm": _smollm(), "llama-bpe": _regex(_LLAMA3), "qwen2": _regex(_QWEN2)}


def _backend(tokens: list[str], merges: list[str], split: list[PreTokenizer]) -> Tokenizer:
    """Makes byte-level BPE over a vocabulary."""
    vocabulary = {token: number for number, token in enumerate(tokens)}
    pairs = [(first, second) for first, second in (merge.split(" ", 1) for merge in merges)]
    tokenizer = Tokenizer(BPE(vocabulary, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _add_whole_tokens(tokenizer: Tokenizer, tokens: list[str], types: list[int]) -> None:
    """Marks the tokens that are never split: control tokens (special) and user-defined ones."""
    for kind, special in ((_CONTROL, True), (_USER_DEFINED, False)):
        whole = [token for token, found in zip(tokens, types, strict=True) if found == kind]
        added = [AddedToken(token, normalized=False, special=special) for token in whole]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)
