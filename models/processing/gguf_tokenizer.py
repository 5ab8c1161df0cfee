"""Rebuilds byte-level BPE tokenizers from GGUF metadata, with the token ids of the Hugging Face folder that it was made from."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Split
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from merit_jax.models.io.errors import raise_if_of_machine

_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5
_SPECIALS = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}


class Rules(NamedTuple):
    """The rules of a pre-tokenizer name that no metadata key holds.

    Attributes:
        split: How a text is split before merges.
        normalizer: Applied to the text first; None for none.
        ignore_merges: Whether a piece that is a token stays whole, although no merges lead to it.
        starts: Whether a text starts with the BOS token where `tokenizer.ggml.add_bos_token` is absent.
    """

    split: Sequence[PreTokenizer]
    normalizer: Normalizer | None = None
    ignore_merges: bool = False
    starts: bool = False


def _regex(pattern: str) -> list[PreTokenizer]:
    return [Split(Regex(pattern), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]


RULES = {
    "smollm": Rules([Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]),
    "llama-bpe": Rules(_regex(_LLAMA3), ignore_merges=True, starts=True),
    "qwen2": Rules(_regex(_QWEN2), normalizer=normalizers.NFC()),
}
"""`tokenizer.ggml.pre` -> its rules."""


def from_gguf(metadata: Mapping[str, Any], where: str) -> PreTrainedTokenizerBase:
    """Rebuilds a byte-level BPE tokenizer from GGUF metadata.

    Args:
        metadata: GGUF key -> value.
        where: The file, for error messages.

    Raises:
        ValueError: The tokenizer is of an unknown kind, or a key is missing.
    """
    kind, split = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if kind != "gpt2" or not isinstance(split, str) or split not in RULES:
        raise ValueError(
            f"{where}: tokenizer {kind!r} with pre-tokenizer {split!r} is not supported; expected 'gpt2' with one of "
            f"{', '.join(RULES)}; use the Hugging Face folder of the model instead"
        )
    for key in ("tokens", "merges", "token_type"):
        if f"tokenizer.ggml.{key}" not in metadata:
            raise ValueError(f"{where}: metadata key tokenizer.ggml.{key} is missing")
    try:
        return _rebuilt(metadata, RULES[split])
    except BaseException as error:  # a list of the wrong kind or length, an id beyond the tokens, ...
        if not of_file(error):
            raise
        raise_if_of_machine(error, where)
        raise ValueError(f"{where}: the tokenizer is damaged ({type(error).__name__}: {error})") from None


def of_file(error: BaseException) -> bool:
    """Returns whether an error can come from a damaged file; a panic of the tokenizers' Rust code is no Exception."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _rebuilt(metadata: Mapping[str, Any], rules: Rules) -> PreTrainedTokenizerBase:
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    ids = {name: metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in _SPECIALS.items()}
    backend = _backend(_vocabulary(tokens, types, set(ids.values())), metadata["tokenizer.ggml.merges"], rules)
    _add_whole_tokens(backend, tokens, types)
    ends = [
        ids[name] if metadata.get(f"tokenizer.ggml.add_{key}_token", default) else None
        for name, key, default in (("bos_token", "bos", rules.starts), ("eos_token", "eos", False))
    ]
    backend.post_processor = _frame(tokens, *ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=_templates(metadata),
        clean_up_tokenization_spaces=False,
        model_max_length=metadata.get(f"{metadata.get('general.architecture')}.context_length"),
        **{name: tokens[number] for name, number in ids.items() if number is not None},
    )


def _vocabulary(tokens: Sequence[str], types: Sequence[int], named: set[int | None]) -> dict[str, int]:
    """Returns token -> id, without the fillers up to the embedding's size, which the folder's tokenizer does not have."""
    found: dict[str, int] = {}
    for number, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind == _UNUSED and number not in named:
            continue
        if found.setdefault(token, number) != number:
            raise ValueError(f"ids {found[token]} and {number} have the same token {token!r:.80}")
    return found


def _backend(vocabulary: Mapping[str, int], merges: Sequence[str], rules: Rules) -> Tokenizer:
    """Makes byte-level BPE over a vocabulary."""
    pairs = [(first, second) for first, second in (merge.split(" ", 1) for merge in merges)]
    tokenizer = Tokenizer(BPE(dict(vocabulary), pairs, ignore_merges=rules.ignore_merges))
    if rules.normalizer is not None:
        tokenizer.normalizer = rules.normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(rules.split))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _add_whole_tokens(tokenizer: Tokenizer, tokens: Sequence[str], types: Sequence[int]) -> None:
    """Marks the tokens that are never split: control tokens (special) and user-defined ones."""
    for kind, special in ((_CONTROL, True), (_USER_DEFINED, False)):
        whole = [token for token, found in zip(tokens, types, strict=True) if found == kind]
        added = [AddedToken(token, normalized=False, special=special) for token in whole]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)


def _frame(tokens: Sequence[str], first: int | None, last: int | None) -> processors.PostProcessor:
    """Returns the post-processor that puts tokens before and behind every text."""
    plain = processors.ByteLevel(trim_offsets=False)
    if first is None and last is None:
        return plain
    before, behind = ([f"{tokens[number]}:ID"] if number is not None else [] for number in (first, last))
    single, second = (
        [piece.replace(":ID", f":{part}") for piece in (*before, f"${name}:ID", *behind)]
        for part, name in enumerate("AB")
    )
    special = list({number: (tokens[number], number) for number in (first, last) if number is not None}.values())
    template = processors.TemplateProcessing(single=single, pair=[*single, *second], special_tokens=special)
    return processors.Sequence([plain, template])


def _templates(metadata: Mapping[str, Any]) -> str | dict[str, str] | None:
    """Returns the chat template; a dictionary where there are several."""
    default = metadata.get("tokenizer.chat_template")
    names = metadata.get("tokenizer.chat_templates") or ()
    named = {name: metadata[f"tokenizer.chat_template.{name}"] for name in names}
    return {"default": default, **named} if named and default is not None else named or default
