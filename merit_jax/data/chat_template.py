r"""Turns conversations into token ids and a loss mask, through the tokenizer's chat template.

**Supervised tokens.** The assistant's span runs from the end of the generation prompt to the end of its turn, the
end-of-turn token included: exactly the tokens that the model has to produce in generation. White space that the
template writes after the end-of-turn token ("\n" after "<|im_end|>" in ChatML) is context of the next turn and not
supervised. Where the template marks its responses with `{% generation %}`, the end of that block is the end of the
span, white space included; words that it writes between the generation prompt and the block are context.

**Boundaries.** Prompt, response and the text between them are tokenised apart, so that a boundary never falls inside a
token and the ids of `encode_prompt` and `encode_response` are together those of `encode`. Nothing after the last
response is kept.

**Structure.** Only the template writes special tokens; a text that contains one is refused.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Int32

from merit_jax.core.types import Example, Tools
from merit_jax.data.left_out import unseen
from merit_jax.data.message_texts import Messages, check_texts, images_of, special_ids
from merit_jax.data.template_turns import Renderer, Turn, find_turns
from merit_jax.data.token_ids import check_ids


class Tokenizer(Protocol):
    """A Hugging Face tokenizer, as far as it is used here."""

    def __call__(self, text: str, *, add_special_tokens: bool, verbose: bool) -> Mapping[str, Any]:
        """Tokenises text."""

    def get_chat_template(self, **options: Any) -> str:
        """Returns the chat template, a Jinja source."""

    def apply_chat_template(self, messages: Messages, **options: Any) -> Any:
        """Renders the messages."""


class Encoded(NamedTuple):
    """A conversation as tokens, and what its training would miss.

    Attributes:
        example: The tokens. It keeps all its images, also those whose tokens were dropped.
        truncated: Whether it lost its end.
        unended: Whether a response that is trained ends in no special token, so that it teaches no end.
        unseen: Names of the texts that the chat template leaves out.
    """

    example: Example
    truncated: bool
    unended: bool
    unseen: tuple[str, ...]


def encode(
    tokenizer: Any, messages: Messages, max_length: int, *, tools: Tools | None = None, where: str = "conversation"
) -> tuple[Example, bool]:
    """Tokenises a conversation; returns `encode_whole`'s example, and whether it was truncated."""
    return encode_whole(tokenizer, messages, max_length, tools=tools, where=where)[:2]


def encode_whole(
    tokenizer: Any, messages: Messages, max_length: int, *, tools: Tools | None = None, where: str = "conversation"
) -> Encoded:
    """Tokenises a conversation and marks the tokens that the assistant produces.

    Args:
        tokenizer: A `Tokenizer`.
        messages: OpenAI messages, the last one the assistant's.
        max_length: Tokens to keep; the rest is truncated from the right.
        tools: Functions that the template announces; None for none.
        where: Name of the record in error messages.

    Raises:
        ValueError: The template fails, a prompt is no prefix of the conversation, a text has a special token, an image's size
            cannot be read, there are images and the tokenizer is a text model's, or no supervised token is left.
    """
    text, turns = _conversation(tokenizer, messages, tools, where)
    trained = [message.get("train", True) for message in messages if message["role"] == "assistant"]
    tokens, supervised, lasts = _tokenize(tokenizer, text[: turns[-1].end], turns, trained)
    example = Example(tokens[:max_length], supervised[:max_length], images_of(messages))
    example.supervised[:1] = False
    check_ids(tokenizer, tokens, where)
    if not supervised[1:].any():
        raise ValueError(
            f"{where}: no token is supervised: the chat template writes nothing where the response is to be (an empty "
            "{% generation %} block, or no content of the assistant's message); let the template write the message's content "
            "and its end-of-turn token there"
        )
    if not example.supervised.any():
        raise ValueError(
            f"{where}: no supervised token is left after truncation to {max_length} tokens (the conversation has "
            f"{len(tokens)}); raise the maximum length or delete the record"
        )
    unended = not lasts <= special_ids(tokenizer)
    return Encoded(example, len(tokens) > max_length, unended, unseen(tokenizer, messages, tools, text, turns))


def encode_prompt(
    tokenizer: Any, messages: Messages, *, tools: Tools | None = None, where: str = "conversation"
) -> Int32[np.ndarray, " n"]:
    """Tokenises the prompt of generation: the messages before the response, and the template's generation prompt.

    Args:
        tokenizer: A `Tokenizer`.
        messages: OpenAI messages, the last one the user's.
        tools: Functions that the template announces; None for none.
        where: Name of the record in error messages.

    Returns:
        Token ids.
    """
    check_texts(tokenizer, messages, tools, where)
    text, turns = find_turns(Renderer(tokenizer, tools, where), messages, prompt=True)
    return _tokenize(tokenizer, text, turns)[0]


def encode_response(
    tokenizer: Any, messages: Messages, text: str, *, tools: Tools | None = None, where: str = "conversation"
) -> Int32[np.ndarray, " m"]:
    """Tokenises `text` as the assistant's answer to `messages`, the end-of-turn token included.

    Args:
        tokenizer: A `Tokenizer`.
        messages: OpenAI messages, the last one the user's.
        text: The response.
        tools: Functions that the template announces; None for none.
        where: Name of the record in error messages.

    Returns:
        Token ids; appended to those of `encode_prompt` they are the ids of `encode`.
    """
    whole, turns = _conversation(tokenizer, (*messages, {"role": "assistant", "content": text}), tools, where)
    prompt, start, end = turns[-1]
    pieces = (whole[prompt:start], whole[start:end])
    return np.asarray([number for piece in pieces for number in _ids(tokenizer, piece, inside=True)], np.int32)


def tokenizer_digest(tokenizer: Any) -> str:
    """Returns the sha256, in hex, of all that determines the ids: vocabulary, rules, chat template, image settings."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    extra = json.dumps(getattr(tokenizer, "extra_rules", None), sort_keys=True)
    parts = (rules, str(tokenizer.chat_template), repr(sorted(tokenizer.special_tokens_map.items())), extra)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _conversation(tokenizer: Any, messages: Messages, tools: Tools | None, where: str) -> tuple[str, list[Turn]]:
    """Renders a conversation that ends in a response, and finds all responses."""
    if not messages or messages[-1]["role"] != "assistant":
        raise ValueError(f"{where}: the last message must be the assistant's; got {[m['role'] for m in messages]}")
    check_texts(tokenizer, messages, tools, where)
    return find_turns(Renderer(tokenizer, tools, where), messages)


def _tokenize(
    tokenizer: Any, text: str, turns: Sequence[Turn], trained: Sequence[bool] = ()
) -> tuple[Int32[np.ndarray, " n"], Bool[np.ndarray, " n"], set[int]]:
    """Tokenises the pieces of `text` between the turns' boundaries apart.

    Returns:
        The ids; True on those of a response that is trained (of all, by default); and the last id of each such
        response, white space aside.
    """
    ends = [0, *itertools.chain.from_iterable(turns), len(text)]
    ids, marks, lasts = [], [], set()
    for index, (start, end) in enumerate(itertools.pairwise(ends)):
        piece = _ids(tokenizer, text[start:end], inside=index > 0)
        is_trained = index % 3 == 2 and (not trained or trained[index // 3])
        ids += piece
        marks += [is_trained] * len(piece)
        lasts |= set(_ends(tokenizer, text[start:end], piece)) if is_trained else set()
    return np.asarray(ids, np.int32), np.asarray(marks, bool), lasts


def _ends(tokenizer: Any, text: str, ids: list[int]) -> list[int]:
    """Returns the last id of a piece of text, that of the white space behind it aside."""
    words = text.rstrip()
    return ids[-1:] if words in ("", text) else _ids(tokenizer, words, inside=True)[-1:]


def _ids(tokenizer: Any, text: str, *, inside: bool) -> list[int]:
    """Tokenises a piece of text; inside a text it gets no space in front, which Llama-2's adds to every text."""
    if not text:
        return []
    skip = 0
    if inside and _adds_space(tokenizer):
        text, skip = "\n" + text, len(tokenizer("\n", add_special_tokens=False)["input_ids"])
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][skip:]


@functools.lru_cache(maxsize=16)
def _adds_space(tokenizer: Any) -> bool:
    """Returns whether a text's first word gets other ids than the same word on a later line."""
    first, later = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", "\na"))
    return later[-len(first) :] != first
