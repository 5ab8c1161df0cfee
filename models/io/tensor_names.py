"""Names that versions and wrappers of transformers give to the same tensors."""

import re
from collections.abc import Iterable, Mapping

_OF_LLAVA = (
    ("model.vision_tower.vision_model.", "vision_tower."),
    ("model.vision_tower.", "vision_tower."),
    ("vision_tower.vision_model.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)
SPELLINGS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "gemma3": _OF_LLAVA,
    "llava": _OF_LLAVA,
    "qwen2_5_vl": (("model.visual.", "visual."), ("model.language_model.", "model.")),
    "qwen3_vl": (("visual.", "model.visual."), ("language_model.", "model.language_model.")),
}
"""`model_type` of a family -> beginnings of tensor names in published checkpoints and in transformers 5 in memory, each with the
one that the family's key table has; the first that fits counts."""


def unwrapped(key: str) -> str:
    """Returns a tensor's name without what `torch.compile` puts into it, "_orig_mod.", and data-parallel training before it.

    Examples:
        >>> unwrapped("module._orig_mod.model.norm.weight")
        'model.norm.weight'
    """
    return re.sub(r"^(module\.)+", "", key.replace("_orig_mod.", ""))


def canonical_names(kind: object, stored: Iterable[str]) -> dict[str, str]:
    """Returns the names of a key table for the tensors of a checkpoint.

    Names are `unwrapped`; versions of transformers differ in the first parts of a name.

    Args:
        kind: `model_type` of its config.json.
        stored: Tensor names of the checkpoint.

    Returns:
        Name in the key table -> name in the checkpoint.

    Raises:
        ValueError: Two tensors of the checkpoint have one name in the table.

    Examples:
        >>> canonical_names("qwen2_5_vl", ["module.model.visual.blocks.0.norm1.weight"])
        {'visual.blocks.0.norm1.weight': 'module.model.visual.blocks.0.norm1.weight'}
    """
    spellings = SPELLINGS.get(kind, ()) if isinstance(kind, str) else ()
    found: dict[str, str] = {}
    for key in stored:
        name = unwrapped(key)
        other, own = next(((other, own) for other, own in spellings if name.startswith(other)), ("", ""))
        name = own + name.removeprefix(other)
        if name in found:
            raise ValueError(f"tensors {found[name]!r} and {key!r} are one under two names; delete one")
        found[name] = key
    return found
