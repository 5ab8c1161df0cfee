"""Renders conversations, and finds the characters of every response in them."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from merit_jax.core.types import Tools
from merit_jax.data.message_texts import images_of, parts_written
from merit_jax.data.template_sandbox import render
from merit_jax.data.template_source import CLOSE, OPEN, mark_generation, template_of

Messages = Sequence[Mapping[str, Any]]


class Turn(NamedTuple):
    """The characters of one response.

    Attributes:
        prompt: End of the generation prompt; where the template does not write that there, the same as `start`.
        start: The first character of the response; between it and `prompt` is what the template excludes by `{% generation %}`.
        end: Behind the last one.
    """

    prompt: int
    start: int
    end: int


class Renderer:
    """The chat template of a tokenizer, for the conversations of one record.

    Args:
        tokenizer: A `chat_template.Tokenizer`.
        tools: Functions that the template announces; None for none.
        where: Name of the record in error messages.

    Attributes:
        marked: Whether the template marks responses by `{% generation %}`.
        where: As above.
    """

    def __init__(self, tokenizer: Any, tools: Tools | None, where: str):
        self.tokenizer, self.where = tokenizer, where
        self._template = template_of(tokenizer, tools, where)
        self._signs = mark_generation(self._template)
        self.marked = self._signs is not None
        self._tools: dict[str, Any] = {} if tools is None else {"tools": [dict(tool) for tool in tools]}

    def __call__(self, messages: Messages, *, prompt: bool = False, signs: bool = False) -> str:
        """Renders messages within limits.

        Args:
            messages: OpenAI messages.
            prompt: Whether the generation prompt follows.
            signs: Whether `{% generation %}` blocks are between `OPEN` and `CLOSE`.

        Raises:
            ValueError: The template fails, shows parts of a message as Python writes them, or the model reads no images.
        """
        images = images_of(messages)
        if images and not hasattr(self.tokenizer, "placeholder"):
            raise ValueError(
                f"{self.where}: {len(images)} images in the conversation, and the model reads text alone; leave the record out, "
                "or take a vision-language model"
            )
        source = self._signs or self._template
        options = {**self._tools, "chat_template": source if signs else self._template}
        messages = [{key: part for key, part in message.items() if key != "train"} for message in messages]
        options |= {"add_generation_prompt": True} if prompt else {}
        text = render(self.tokenizer, messages, self.where, source=source, images=len(images), **options)
        if written := parts_written(messages, text):
            raise ValueError(
                f"{self.where}: the chat template writes a message's list of parts as Python shows it ({written!r}); take a "
                "template that reads parts, such as the vision-language model's own, or mend this one"
            )
        return text


def find_turns(render: Renderer, messages: Messages, *, prompt: bool = False) -> tuple[str, list[Turn]]:
    """Renders a conversation and finds the characters of every response.

    Args:
        render: Renders it.
        messages: OpenAI messages.
        prompt: Whether the generation prompt follows.

    Raises:
        ValueError: A prompt of generation is no prefix of the conversation, or responses are not marked one by one.
    """
    responses = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    prompts = [render(messages[:index], prompt=True) for index in responses]
    if render.marked:
        marked = render(messages, prompt=prompt, signs=True)
        return _of_blocks(render, messages, marked, prompts, responses)
    whole = render(messages, prompt=prompt)
    turns = []
    for index, before in zip(responses, prompts, strict=True):
        turn = (whole if index == len(messages) - 1 else render(messages[: index + 1])).rstrip()
        if not (turn.startswith(before) and whole.startswith(turn)):
            raise ValueError(
                _not_a_prefix(render, messages[: index + 1], (before, turn), whole, whole.startswith(prompts[-1]))
            )
        turns.append(Turn(len(before), len(before), len(turn)))
    return whole, turns


def _of_blocks(
    render: Renderer, messages: Messages, marked: str, prompts: list[str], responses: list[int]
) -> tuple[str, list[Turn]]:
    """Finds responses by the template's `{% generation %}` blocks.

    A response starts at the end of the generation prompt also where its block opens before (SmolLM3's holds the turn's header),
    or after white space (LLaVA's): there the model begins to write.
    """
    pieces = re.split(f"{OPEN}(.*?){CLOSE}", marked, flags=re.DOTALL)
    ends = list(itertools.accumulate(len(piece) for piece in pieces))
    whole, blocks = "".join(pieces), list(zip(ends[0:-1:2], ends[1::2], strict=True))
    if len(blocks) != len(prompts):
        raise ValueError(
            f"{render.where}: the chat template marks {len(blocks)} responses with {{% generation %}}, the conversation has "
            f"{len(prompts)}; mend the template"
        )
    if prompts and responses[-1] == len(messages) - 1 and not whole.startswith(prompts[-1]):
        raise ValueError(_not_a_prefix(render, messages, (prompts[-1], ""), whole, marks_help=False))
    turns = []
    for before, (first, last) in zip(prompts, blocks, strict=True):
        prompt = len(before) if whole.startswith(before) and len(before) <= last else first
        start = prompt if not whole[prompt:first].strip() else first
        turns.append(Turn(prompt, start, last))
    return whole, turns


def _not_a_prefix(render: Renderer, messages: Messages, parts: tuple[str, str], whole: str, marks_help: bool) -> str:
    """Returns the sentence on a prompt, or a response, that the conversation does not continue, with the mend that leads on.

    Args:
        render: Renders conversations.
        messages: Those up to the response.
        parts: The prompt, and the prompt with the response, each rendered alone.
        whole: The conversation.
        marks_help: Whether `{% generation %}` is the mend.
    """
    prompt, turn = parts
    is_of_prompt = not whole.startswith(prompt) or not turn.startswith(prompt)
    first, second = (prompt, turn if whole.startswith(prompt) else whole) if is_of_prompt else (turn, whole)
    pairs = enumerate(zip(first, second, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))
    without = render(messages[:-1]) if len(messages) > 1 else ""
    if is_of_prompt and prompt.startswith(without) and same >= len(without):
        mend = (
            f"let both begin a response alike: take {prompt[same:]!r} out of the template's generation prompt, or write it "
            "before the response in the assistant's turn ({% generation %} does not mend this)"
        )
    elif marks_help:
        mend = (
            "mark the response with {% generation %} ... {% endgeneration %} in the template, opened right after the generation "
            "prompt"
        )
    else:
        mend = "let the template write a message the same way whether or not a response follows it"
    return (
        f"{render.where}: the chat template does not render the prompt as a prefix of the conversation (prompt continues with "
        f"{first[same : same + 40]!r}, conversation with {second[same : same + 40]!r}); {mend}"
    )
