"""Size and speed of a model before and after the removal of heads, in words and numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

ROWS = (
    ("parameters", "parameters", ",.0f"),
    ("parameter_bytes", "bytes of the parameters", ",.0f"),
    ("cache_bytes", "key-value cache (bytes per token)", ",.0f"),
    ("read_tokens_per_second", "reading (tokens/s)", ",.1f"),
    ("written_tokens_per_second", "writing (tokens/s)", ",.1f"),
)
"""Key of a model's costs, its label and its form."""


def cost_rows(costs: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yields lines of a table: quantity, before, after, and the ratio of after to before.

    Args:
        costs: Content of `costs.json`.
    """
    for key, label, form in ROWS:
        before, after = costs["before"][key], costs["after"][key]
        ratio = f"{after / before:.2f}" if before else ""
        yield [label, format(before, form), format(after, form), ratio]


def choice_in_words(chosen: Mapping[str, Any]) -> str:
    """Returns a sentence on the heads that are removed, and how they were chosen.

    Args:
        chosen: Content of `pruning.json`.
    """
    kept, settings = chosen["kept"], chosen["inputs"]["prune"]
    total = sum(len(line) for part in kept.values() for line in part)
    gone = total - sum(sum(line) for part in kept.values() for line in part)
    alpha = f" with α = {chosen['alpha']:g}" if chosen["criterion"] == "hies" else ""
    how = f"by {chosen['criterion']}{alpha}{_how(settings)}"
    return f"{gone} of {total} attention heads ({100 * chosen['removed']:.1f} %) are removed, {how}."


def _how(settings: Mapping[str, Any]) -> str:
    what = "groups with their keys and values" if settings["unit"] == "group" else "heads"
    where = "as many from every layer" if settings["spread"] == "layer" else "the lowest of all layers"
    rounds = f", in {settings['rounds']} rounds" if settings["rounds"] > 1 else ""
    return f": {what}, {where}{rounds}"
