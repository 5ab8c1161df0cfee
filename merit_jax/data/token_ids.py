"""Token ids that a model's embedding has no row for, which would be computed as NaN."""

from typing import Any

from jaxtyping import Int32

from merit_jax.core.types import Array

ROWS = "embedding_rows"
"""Attribute of a tokenizer: rows of the embedding of the model that it came with; a tokenizer without one is not checked."""


def check_ids(tokenizer: Any, tokens: Int32[Array, " n"], where: str) -> None:
    """Raises a ValueError that names the first token past the end of the embedding, its id and `where` it is.

    A tokenizer may know more tokens than the model has rows, as long as no text has them.
    """
    rows = getattr(tokenizer, ROWS, None)
    if rows is None or not len(tokens) or int(tokens.max()) < rows:
        return
    found = int(tokens[tokens >= rows][0])
    raise ValueError(
        f"{where}: token {tokenizer.convert_ids_to_tokens(found)!r} has id {found}, but the model's embedding has {rows} "
        "rows; take the tokenizer that the model was trained with, or a checkpoint whose embedding has been enlarged"
    )
