"""Words for the record of searched merge weights, `search` in `merge.json`, as the model card and the report show it."""

from collections.abc import Mapping
from typing import Any

SCORES = {"suites": "mean accuracy on the suites' choosing half", "mixture": "loss on training examples of the mixture"}
"""What a search scored on -> its name."""


def summary(search: Mapping[str, Any]) -> str:
    """Returns how the weights were found, in a sentence.

    Args:
        search: Of a merge's record.

    Examples:
        >>> found = {"evaluations": 40, "scored_on": "mixture", "score": -2.5, "token_weights_score": -2.75}
        >>> summary(found).partition(": ")[2]
        'the best of 40 by loss on training examples of the mixture, 2.5000; the token weights have 2.7500.'
    """
    sign = 1 if search["scored_on"] == "suites" else -1  # a loss is minimised, and scored by its negative
    best, start = sign * search["score"], sign * search["token_weights_score"]
    return (
        f"The merge weights were searched by CMA-ES: the best of {search['evaluations']} by {SCORES[search['scored_on']]}, "
        f"{best:.4f}; the token weights have {start:.4f}."
    )


def block_names(search: Mapping[str, Any]) -> list[str]:
    """Returns the name of each row of weights; none where one row is for all parameters.

    Examples:
        >>> block_names({"rows": [[0.5, 0.5], [0.25, 0.75], [0.75, 0.25]]})
        ['block 0', 'block 1', 'outside of layers']
        >>> block_names({"rows": [[0.5, 0.5]]})
        []
    """
    blocks = len(search["rows"]) - 1
    return [*(f"block {number}" for number in range(blocks)), "outside of layers"] if blocks else []
