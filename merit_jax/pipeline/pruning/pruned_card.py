"""Writes the model card of a model without some of its attention heads."""

from collections.abc import Mapping
from typing import Any

from merit_jax.merging.model_card import card_files, escape, listed


def pruned_card(record: Mapping[str, Any]) -> dict[str, str]:
    """Returns the card of a model without some of its attention heads, as `folder_card` does.

    Args:
        record: Content of `merit.json`: `base`, criterion, alpha, share of heads removed, the heads that stay, sentences on how
            the others are removed (`notes`), and the share of the mixture that the model was trained on after it (`recovery`).
    """
    weighed = f" with alpha = {record['alpha']:g}" if record["criterion"] == "hies" else ""
    recovery = record["recovery"]
    after = (
        f"then trained on {100 * recovery:g} % of the calibration datasets" if recovery else "and not trained after it"
    )
    notes = "\n".join(f"* {escape(note)}" for note in record["notes"])
    body = f"""
{100 * record["removed"]:.1f} % of the attention heads of {escape(record["base"])} were removed by merit-jax, those that
`{record["criterion"]}` ranks lowest{weighed} (Choi et al., *Entropy Meets Importance*, arXiv:2510.13832), {after}.

{notes}

Versions: {listed(record["versions"])}. `merit.json` next to this file lists the heads that stay."""
    return card_files(record, f"{record['base']}, pruned", body, base_model=record["base"])
