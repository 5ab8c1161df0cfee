"""Names under which a row keeps its parts, and those of every format."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from merit_jax.data.messages import CALL
from merit_jax.data.readers import Row


class ColumnMap(NamedTuple):
    """Names of a row's columns, in LLaMA-Factory's words.

    Attributes:
        columns: Part -> column, over the format's defaults (all: system, tools, images; alpaca: prompt, query, response,
            history; those of turns: messages).
        tags: Over the defaults of sharegpt: role_tag, content_tag, user_tag, assistant_tag, system_tag, observation_tag,
            function_tag.
        image_root: The folder of the images, from which relative paths start; empty: that of the dataset's file.
    """

    columns: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}
    image_root: str = ""


ALPACA_COLUMNS = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "history": "history",
}
SHAREGPT_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "system_tag": "system",
    "observation_tag": "observation",
    "function_tag": "function_call",
}
TAGGED_ROLES = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
    "function_tag": CALL,
    "observation_tag": "tool",
}
"""Tag -> role; of two tags of one name the first counts."""

IMAGES = ("image", "images")


def image_column(row: Row, where: str, layout: ColumnMap) -> str | None:
    """Returns the column of the row's images; None if it has none."""
    if "images" in layout.columns:
        return layout.columns["images"]
    filled = [key for key in IMAGES if has(row, key)]
    if len(filled) == 2:
        raise ValueError(f"{where}: both 'image' and 'images' are set; set `columns`: {{images: ...}} in the manifest")
    return next((key for key in (*filled, *IMAGES) if key in row), None)


def check_columns(columns: Mapping[str, str], keys: Collection[str], where: str) -> None:
    """Refuses a column that the manifest names and that no row has.

    Args:
        columns: Part -> column, as the manifest names them.
        keys: The keys of all rows.
        where: What the rows are of, for error messages.

    Raises:
        ValueError: There is such a column; it is named, with the keys.
    """
    for part, column in columns.items():
        if column not in keys:
            raise ValueError(
                f"{where}: `columns` in the manifest names {column!r} as {part!r}, which no row has (found: "
                f"{sorted(keys)!r:.300}); correct the name, or take it out of `columns`"
            )


def has(row: Row, key: str) -> bool:
    """Returns whether a row's field is filled."""
    value = row.get(key)
    return value is not None and value is not False and (not hasattr(value, "__len__") or len(value) > 0)
