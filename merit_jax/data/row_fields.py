"""Reads the fields of a row besides its conversation: functions, answer options and facts; refuses those that would be lost."""

from collections.abc import Mapping, Sequence
from typing import Any

from merit_jax.data.messages import REASONINGS, TURN_FLAGS, is_trained
from merit_jax.data.readers import Row
from merit_jax.data.tool_calls import is_blank

MARKS = ("kto_tag", *TURN_FLAGS)
"""Fields that say whether a row is trained."""
PREFERENCE = "a preference pair is not instruction data; remove both fields, or make the chosen answer the response"
IN_TURN = "it belongs into the assistant's turn; use the format `messages`"
REFUSED = {
    "chosen": PREFERENCE,
    "rejected": PREFERENCE,
    "chat_template_kwargs": "options of the chat template are not set row by row; remove it, or write them into the template",
    **dict.fromkeys((*REASONINGS, "tool_calls", "function_call"), IN_TURN),
    "system_prompt": "set `columns`: {system: system_prompt} in the manifest, or remove it",
}
"""Field of a row that changes training -> what to do about it."""
ONE_OF_TWO = (
    "`formatting` in the manifest chooses between the two conversations of the row; remove the fields of the other"
)
ONE_OF_TALKS = "set `formatting`, and `columns`: {messages: ...} to the one that is meant, in the manifest"
BESIDE = {
    "flan": {"instruction": "write it into `inputs`, or remove it"},
    "alpaca": {
        "context": "set `columns`: {query: context} in the manifest, or remove it",
        **dict.fromkeys(("inputs", "targets"), ONE_OF_TWO),
    },
    **{key: {"messages": ONE_OF_TALKS} for key in ("sharegpt", "llava")},
    **{key: {"conversations": ONE_OF_TALKS} for key in ("messages", "openai")},
}
"""Format -> field that its rows have in another format -> what to do about it."""


def check_row(row: Row, format_name: str, columns: Mapping[str, str], where: str) -> None:
    """Refuses a row with a field that changes training and is not read, or that says that the row is not trained.

    Args:
        row: One row of a file.
        format_name: The format that it is read in.
        columns: Part of the conversation -> field, as the manifest names them.
        where: "FILE:LINE", for error messages.

    Raises:
        ValueError: There is such a field; it is named.
    """
    beside = BESIDE.get(format_name, {})
    refused = REFUSED | {
        key: remedy for key, remedy in beside.items() if remedy != ONE_OF_TALKS or "messages" not in columns
    }
    read = set(columns.values())
    filled = {key: row[key] for key in (*refused, *MARKS) if key in row and key not in read and not is_blank(row[key])}
    for key in refused:
        if key in filled:
            raise ValueError(f"{where}: the row has a field {key!r}, which is not read; {refused[key]}")
    if not is_trained(filled, where):
        raise ValueError(
            f"{where}: nothing is left to train, {filled!r:.80} marks the row as not trained; delete the row"
        )


def read_options(row: Row, target: str, where: str) -> tuple[str, ...] | None:
    """Reads a row's `options`, among which its last response is the right one; None without.

    Raises:
        ValueError: They are not two or more different texts, or the response is not one of them.
    """
    options = row.get("options")
    if options is None:
        return None
    if not _is_texts(options):
        raise ValueError(f"{where}: field 'options' must be null or a list of strings, got {options!r:.80}")
    if problem := _options_problem([option.strip() for option in options]):
        raise ValueError(
            f"{where}: the options {options!r:.200} {problem}; give two or more different answers, or leave the field out"
        )
    if target not in options:
        raise ValueError(
            f"{where}: target {target!r:.80} is not among the options {options!r:.200}; mend one of the two, or rename the "
            "field if it is something else"
        )
    return tuple(options)


def read_facts(row: Row, where: str) -> tuple[str, ...] | None:
    """Reads a row's `facts`, which an open answer should mention; None without.

    Raises:
        ValueError: They are no texts, or one is empty.
    """
    facts = row.get("facts")
    if facts is None:
        return None
    if not _is_texts(facts) or not facts or not all(fact.strip() for fact in facts):
        raise ValueError(
            f"{where}: field 'facts' must be null or a list of strings that say something, got {facts!r:.80}"
        )
    return tuple(facts)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def _options_problem(options: Sequence[str]) -> str:
    if len(options) < 2:
        return "are fewer than two"
    if not all(options):
        return "hold an empty one"
    return "repeat" if len(set(options)) < len(options) else ""
