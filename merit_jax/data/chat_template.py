r"""Turns conversations into token ids and a loss mask, through the tokenizer's chat template.

**Supervised tokens.** The assistant's span runs from the end of the generation prompt to the end of its turn, the
end-of-turn token included: exactly the tokens that the model has to produce in generation. White space that the
template writes after the end-of-turn token ("\n" after "<|im_end|>" in ChatML) is context of the next turn and not
supervised. Where the template marks its responses with `{% generation %}`, the end of that block is the end of the
span, white space included.

**Boundaries.** Prompt, response and the text between them are tokenised apart, so that a boundary never falls inside a
token and the ids of `encode_prompt` and `encode_response` are together those of `encode`. Nothing after the last
response is kept.
"""

import functools
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Int32

from merit_jax.core.types import Example, Image, Tools
from merit_jax.data.template_sandbox import render
from merit_jax.data.token_ids import check_ids

Messages = Sequence[Mapping[str, Any]]
Span = tuple[int, int]

OPEN, CLOSE = "\ue000generation\ue001", "\ue000endgeneration\ue001"


class Tokenizer(Protocol):
    """A Hugging Face tokenizer, as far as it is used here."""

    def __call__(self, text: str, *, add_special_tokens: bool, verbose: bool) -> Mapping[str, Any]:
        """Tokenises text."""

    def get_chat_template(self) -> str:
        """Returns the chat template, a Jinja source."""

    def apply_chat_template(self, messages: Messages, **options: Any) -> Any:
        """Renders the messages."""


def encode(
    tokenizer: Any, messages: Messages, max_length: int, *, tools: Tools | None = None, where: str = "conversation"
) -> tuple[Example, bool]:
    """Tokenises a conversation and marks the tokens that the assistant produces.

    Args:
        tokenizer: A `Tokenizer`.
        messages: OpenAI messages, the last one the assistant's.
        max_length: Tokens to keep; the rest is truncated from the right.
        tools: Functions that the template announces; None for none.
        where: Name of the record in error messages.

    Returns:
        The example, and whether it was truncated. It keeps all its images, also those whose tokens were dropped.

    Raises:
        ValueError: The template fails, a prompt is no prefix of the conversation, an image's size cannot be read, there are
            images and the tokenizer is a text model's, or no supervised token is left.
    """
    text, spans = _render_spans(tokenizer, messages, tools, where)
    trained = [message.get("train", True) for message in messages if message["role"] == "assistant"]
    tokens, supervised = _tokenize(tokenizer, text[: spans[-1][1]], spans, trained)
    example = Example(tokens[:max_length], supervised[:max_length], images_of(messages))
    example.supervised[:1] = False
    check_ids(tokenizer, tokens, where)
    if not example.supervised.any():
        raise ValueError(
            f"{where}: no supervised token is left after truncation to {max_length} tokens (the conversation has "
            f"{len(tokens)}); raise the maximum length or delete the record"
        )
    return example, len(tokens) > max_length


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
    text = _render(tokenizer, messages, where, tools=tools, add_generation_prompt=True)
    earlier = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    spans = _render_spans(tokenizer, messages[: earlier[-1] + 1], tools, where)[1] if earlier else []
    return _tokenize(tokenizer, text, spans)[0]


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
    whole, spans = _render_spans(tokenizer, (*messages, {"role": "assistant", "content": text}), tools, where)
    start, end = spans[-1]
    return np.asarray(_ids(tokenizer, whole[start:end], inside=True), np.int32)


def images_of(messages: Messages) -> tuple[Image, ...]:
    """Returns the images of a conversation, in order."""
    contents = [message["content"] for message in messages if not isinstance(message["content"], str)]
    return tuple(part for content in contents for part in content if part["type"] == "image")


def tokenizer_digest(tokenizer: Any) -> str:
    """Returns the sha256, in hex, of all that determines the ids: vocabulary, rules, chat template, image settings."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    extra = json.dumps(getattr(tokenizer, "extra_rules", None), sort_keys=True)
    parts = (rules, str(tokenizer.chat_template), repr(sorted(tokenizer.special_tokens_map.items())), extra)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _render_spans(tokenizer: Any, messages: Messages, tools: Tools | None, where: str) -> tuple[str, list[Span]]:
    """Renders the conversation and finds the characters of every response."""
    if not messages or messages[-1]["role"] != "assistant":
        raise ValueError(f"{where}: the last message must be the assistant's; got {[m['role'] for m in messages]}")
    marked = _mark_generation(_template(tokenizer, where))
    responses = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    prompts = [
        _render(tokenizer, messages[:index], where, tools=tools, add_generation_prompt=True) for index in responses
    ]
    if marked is None:
        return _prefix_spans(lambda n: _render(tokenizer, messages[:n], where, tools=tools), responses, prompts, where)
    return _block_spans(_render(tokenizer, messages, where, tools=tools, chat_template=marked), prompts, where)


def _prefix_spans(
    render: Callable[[int], str], responses: list[int], prompts: list[str], where: str
) -> tuple[str, list[Span]]:
    """Finds responses by rendering ever longer prefixes of the conversation."""
    turns = [render(index + 1) for index in responses]
    whole, spans = turns[-1], []
    for prompt, turn in zip(prompts, turns, strict=True):
        turn = turn.rstrip()
        if not (turn.startswith(prompt) and whole.startswith(turn)):
            raise ValueError(_not_a_prefix(prompt, whole, where))
        spans.append((len(prompt), len(turn)))
    return whole, spans


def _block_spans(marked: str, prompts: list[str], where: str) -> tuple[str, list[Span]]:
    """Finds responses by the template's `{% generation %}` blocks.

    A block that opens before the end of the generation prompt (SmolLM3's holds the turn's header) starts at that end.
    """
    pieces = re.split(f"{OPEN}(.*?){CLOSE}", marked, flags=re.DOTALL)
    ends = np.cumsum([len(piece) for piece in pieces]).tolist()
    whole, blocks = "".join(pieces), list(zip(ends[0:-1:2], ends[1::2], strict=True))
    if len(blocks) != len(prompts):
        raise ValueError(
            f"{where}: the chat template marks {len(blocks)} responses with {{% generation %}}, the conversation has "
            f"{len(prompts)}; mend the template"
        )
    if not whole.startswith(prompts[-1]):
        raise ValueError(_not_a_prefix(prompts[-1], whole, where))
    starts = [len(prompt) if whole.startswith(prompt) else 0 for prompt in prompts]
    return whole, [(max(start, first), last) for start, (first, last) in zip(starts, blocks, strict=True)]


def _not_a_prefix(prompt: str, whole: str, where: str) -> str:
    same = next(
        (i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), min(len(prompt), len(whole))
    )
    return (
        f"{where}: the chat template does not render the prompt as a prefix of the conversation (prompt continues with "
        f"{prompt[same : same + 40]!r}, conversation with {whole[same : same + 40]!r}); mark the response with "
        "{% generation %} ... {% endgeneration %} in the template, opened right after the generation prompt"
    )


def _template(tokenizer: Any, where: str) -> str:
    try:
        return tokenizer.get_chat_template()
    except ValueError as error:
        raise ValueError(f"{where}: the tokenizer has no chat template; set `tokenizer.chat_template`") from error


def _render(tokenizer: Any, messages: Messages, where: str, *, tools: Tools | None, **options: Any) -> str:
    """Renders the conversation within limits; refuses images where the model reads none."""
    images = images_of(messages)
    if images and not hasattr(tokenizer, "placeholder"):
        raise ValueError(
            f"{where}: {len(images)} images in the conversation, and the model reads text alone; leave the record out, or "
            "take a vision-language model"
        )
    template = _template(tokenizer, where)
    source = _mark_generation(template) or template
    messages = [{key: part for key, part in message.items() if key != "train"} for message in messages]
    return render(tokenizer, messages, where, source=source, images=len(images), **_with_tools(tools), **options)


@functools.lru_cache(maxsize=16)
def _mark_generation(template: str) -> str | None:
    """Replaces `{% generation %}` tags by characters that can be found in the rendered text; None without such a tag.

    The library's own assistant mask is one of tokens of the whole text, where a token may straddle the boundary; this
    one is of characters.
    """
    for tag, sign in (("generation", OPEN), ("endgeneration", CLOSE)):
        block = r"{%\1 if true %}{{ '" + sign + r"' }}{% endif \2%}"
        template, found = re.subn(rf"{{%([-+]?)\s*{tag}\s*([-+]?)%}}", block, template)
        if not found:
            return None
    return template


def _with_tools(tools: Tools | None) -> dict[str, Any]:
    """The options that announce tools; none without, as a tokenizer may take none."""
    return {} if tools is None else {"tools": [dict(tool) for tool in tools]}


def _tokenize(
    tokenizer: Any, text: str, spans: Sequence[Span], trained: Sequence[bool] = ()
) -> tuple[Int32[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Tokenises the pieces of `text` between the spans' ends apart; marks those inside a span that is trained."""
    ends = [0, *(end for span in spans for end in span), len(text)]
    ids, marks = [], []
    for index, (start, end) in enumerate(itertools.pairwise(ends)):
        piece = _ids(tokenizer, text[start:end], inside=index > 0)
        ids += piece
        is_response = index % 2 == 1
        marks += [is_response and (not trained or trained[index // 2])] * len(piece)
    return np.asarray(ids, np.int32), np.asarray(marks, bool)


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
