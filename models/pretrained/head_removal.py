"""A checkpoint without some of its attention heads: smaller where `transformers` can load that, with zeros where it cannot."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from merit_jax.models.build_model import text_of
from merit_jax.models.families.head_rules import HEAD_RULES, VISION, head_rule
from merit_jax.models.heads import DECODER
from merit_jax.models.interface import Array, DecoderConfig
from merit_jax.models.kept_heads import SmallerHeads, of_heads, smaller_heads, without_output
from merit_jax.models.modules.head_gates import attention_paths
from merit_jax.models.pretrained.load import Pretrained
from merit_jax.models.pretrained.reshaped import reshaped

Changes = Mapping[str, Callable[[np.ndarray], np.ndarray]]
"""Leaf path -> function from the leaf of all heads to the new one."""


class Removal(NamedTuple):
    """A checkpoint without some heads.

    Attributes:
        base: The checkpoint in its new shapes, as `export_hf` takes it. Its leaves are read through `reader`.
        changes: Those of leaves that do not stay as they are.
        notes: A sentence for each part that has lost heads: their number, and the new shapes or the reason why those stay.
    """

    base: Pretrained
    changes: Changes
    notes: tuple[str, ...]

    def reader(self, read_leaf: Callable[[str], Array]) -> Callable[[str], Array]:
        """Returns a reader of the new leaves, given one of leaves of all heads (the checkpoint's, or a merged model's)."""

        def read(path: str) -> Array:
            leaf = read_leaf(path)
            return self.changes[path](np.asarray(leaf)) if path in self.changes else leaf

        return read


def remove_heads(
    opened: Pretrained, kept: Mapping[str, Shaped[np.ndarray, "layers heads"]], *, smaller: bool = True
) -> Removal:
    """Removes attention heads: `export_hf(out, removal.reader(opened.read), removal.base)` writes the model without them.

    The result computes what `model.gated(kept)` does. A decoder gets the smallest number of heads that holds those of every
    layer and that `transformers` can load (`merit_jax.models.families.head_rules`), each of the same size as before; where
    layers keep different numbers, the rest of the weights is zero. In other parts the shapes stay, and zeros in the output
    projection stand for removed heads.

    Args:
        opened: The checkpoint.
        kept: Part of the model -> bool, True for the heads that stay; a part that is left out keeps all.
        smaller: Whether shapes get smaller where they can; if not, they stay in all parts.

    Raises:
        ValueError: A part has no heads, or its mask has another type or shape than its heads.
    """
    config, paths = opened.model.config, attention_paths(opened.model.config)
    for part, mask in kept.items():
        if part not in opened.model.heads:
            raise ValueError(f"heads of {part!r}: this model has heads in {', '.join(opened.model.heads)}")
        count = opened.model.heads[part]
        if mask.dtype != bool or mask.shape != (count.layers, count.heads):
            expected = f"bool {count.layers, count.heads}"
            raise ValueError(f"heads of {part!r} have type {mask.dtype} and shape {mask.shape}; expected {expected}")
    base, notes = opened, []
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    for part, mask in kept.items():
        if not mask.all():
            path, removed = "/".join(paths[part]), f"{part}: {(~mask).sum()} of {mask.size} attention heads are removed"
            found = _smaller(opened, mask) if part == DECODER else VISION
            found = found if smaller else "no smaller ones were asked for"
            if isinstance(found, str):
                changes[f"{path}/output/kernel"] = partial(without_output, kept=mask)
                notes.append(f"{removed}; zeros in the output projection stand for them, and the shapes stay: {found}.")
            else:
                base, places = found
                changes |= _slices(path, places, head_dim=text_of(config).head_dim)
                notes.append(f"{removed}; {_new_shapes(text_of(config), text_of(base.model.config), places)}.")
    return Removal(base, changes, tuple(notes))


def _smaller(opened: Pretrained, mask: np.ndarray) -> tuple[Pretrained, SmallerHeads] | str:
    """Returns the checkpoint with a smaller decoder, and its heads; or the reason why it cannot be smaller."""
    text, rule = text_of(opened.model.config), head_rule(opened.model.config)
    if rule.fixed:
        return rule.fixed
    possible = partial(rule.possible, text)
    places = smaller_heads(mask, text.kv_heads, (lambda _: True) if rule.alias else possible)
    heads, groups = places.query.shape[1], places.key.shape[1]
    if (heads, groups) == (text.heads, text.kv_heads):
        condition = f" and {rule.condition}, as transformers asks" if rule.condition and not rule.alias else ""
        return f"no smaller number of heads holds those of every layer{condition}"
    return reshaped(opened, heads, groups, "" if possible(heads) else rule.alias), places


def _slices(path: str, places: SmallerHeads, head_dim: int) -> Changes:
    """Returns the changes of an attention's projections."""
    changes = {}
    for name, heads in (("query", places.query), ("key", places.key), ("value", places.key)):
        for kind, axis in (("kernel", 2), ("bias", 1)):
            changes[f"{path}/{name}/{kind}"] = partial(of_heads, places=heads, axis=axis, head_dim=head_dim)
    return changes | {f"{path}/output/kernel": partial(of_heads, places=places.query, axis=1, head_dim=head_dim)}


def _new_shapes(old: DecoderConfig, new: DecoderConfig, places: SmallerHeads) -> str:
    """Returns the words for the numbers of heads of a smaller decoder, for zeros in it, and for its new `model_type`."""
    said = f"a layer has {new.heads} query and {new.kv_heads} key and value heads in place of {old.heads} and {old.kv_heads}"
    fillers = int((places.query < 0).sum())
    if fillers:
        said += f", {fillers} of all {places.query.size} query heads being zeros, since the layers keep different heads"
    if new.family != old.family:
        said += (
            f"; its model_type is {new.family!r}, which computes the same, since transformers asks of {old.family!r} a "
            f"number of heads that {HEAD_RULES[old.family].condition}"
        )
    return said
