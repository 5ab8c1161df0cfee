"""Pairs the tensors of folders of one model that differ in names: versions of transformers, wrappers, a stored tied head.

Everything is named as the base names it. What a model recomputes comes from the base.
"""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from merit_jax.models.io.raw_tensors import StoredTensors
from merit_jax.models.io.safetensors import TensorSpec
from merit_jax.models.io.tensor_names import canonical_names
from merit_jax.models.processing.config_differences import is_tied

RECOMPUTED = re.compile(r"(.*\.)?(rotary(_pos)?_emb\.(original_)?inv_freq|embeddings\.position_ids)")
"""Buffers that some versions store and others compute from the config."""
_TABLE = re.compile(r"(.*\.)?(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|shared)\.weight")
_HEAD = re.compile(r"(.*\.)?lm_head\.weight")


@dataclasses.dataclass(frozen=True)
class PairedTensors:
    """The tensors of a folder under the names of the base, as a `LeafReader`.

    Attributes:
        folder: The folder.
        names: Name in the base -> name in the folder; a name that the base lacks is the folder's own.
    """

    folder: StoredTensors
    names: Mapping[str, str]

    def paths(self) -> dict[str, TensorSpec]:
        """Returns tensor name -> shape and the type it is read as, sorted by name."""
        specs = self.folder.paths()
        return {name: specs[key]._replace(key=name) for name, key in sorted(self.names.items())}

    def read(self, path: str) -> np.ndarray:
        """Reads one tensor."""
        return self.folder.read(self.names[path])

    def view(self, path: str) -> np.ndarray | None:
        """Returns one tensor in its file, mapped and in its stored type, read-only; None where it is computed."""
        return self.folder.view(self.names[path])

    def only(self, names: Collection[str]) -> "PairedTensors":
        """Returns the tensors of these names of the base alone."""
        return dataclasses.replace(self, names={name: key for name, key in self.names.items() if name in names})

    def source(self, path: str) -> str:
        """Returns the file that holds a tensor, for error messages."""
        return str(self.folder.file_of(self.names[path]))


class Pairing(NamedTuple):
    """Folders whose tensors have one name each.

    Attributes:
        base: The base's tensors that are merged.
        models: The same of the models, in order.
        copies: Name of a further tensor of the base, a tied one -> name of the one that has its values.
    """

    base: PairedTensors
    models: tuple[PairedTensors, ...]
    copies: dict[str, str]


def pair(base: StoredTensors, models: Sequence[StoredTensors]) -> Pairing:
    """Pairs the tensors of a base and of models that were trained from it.

    Tensors that one of them lacks, or has in another shape, are left for the comparison of the trees.

    Raises:
        ValueError: Two tensors of a folder have one name, or differ though the config ties them.
    """
    tied = is_tied(base.config)
    ours, copies = _distinct(base, base.config, tied)
    paired = [PairedTensors(model, _named_as(ours, base, model, tied)) for model in models]
    return Pairing(PairedTensors(base, {key: key for key in ours.values()}), tuple(paired), copies)


def _named_as(ours: Mapping[str, str], base: StoredTensors, model: StoredTensors, tied: bool) -> dict[str, str]:
    """Returns name in the base -> name in the model."""
    theirs, _ = _distinct(model, base.config, tied)
    lacking, further = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    if tied and len(lacking) == len(further) == 1 and all(_embedding(name) for name in (*lacking, *further)):
        theirs[lacking[0]] = theirs.pop(further[0])  # one stores the table, the other the head that is tied to it
    return {ours.get(name, key): key for name, key in theirs.items()}


def _distinct(folder: StoredTensors, config: Mapping[str, object], tied: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Returns name -> stored name of what is not recomputed and not a copy; and stored name of a copy -> that of its original."""
    names = canonical_names(config.get("model_type"), folder.specs)
    names = {name: key for name, key in names.items() if not RECOMPUTED.fullmatch(name)}
    copies: dict[str, str] = {}
    if tied:
        tables = sorted((name for name in names if _embedding(name)), key=lambda name: bool(_HEAD.fullmatch(name)))
        for place, name in enumerate(tables):
            alike = [
                names[other] for other in tables[:place] if other in names and _same_shape(folder, names, name, other)
            ]
            original = next((key for key in alike if _equal(folder, names[name], key)), None)
            if original is not None:
                copies[names.pop(name)] = original
            elif alike and _HEAD.fullmatch(name):
                raise ValueError(
                    f"{folder.path}: {alike[0]!r} and {names[name]!r} differ, but the config ties them; set tie_word_embeddings "
                    "to false in config.json of every folder, or delete one"
                )
    return names, copies


def _embedding(name: str) -> bool:
    return bool(_TABLE.fullmatch(name) or _HEAD.fullmatch(name))


def _same_shape(folder: StoredTensors, names: Mapping[str, str], one: str, other: str) -> bool:
    return folder.specs[names[one]].shape == folder.specs[names[other]].shape


def _equal(folder: StoredTensors, one: str, other: str) -> bool:
    return np.array_equal(folder.read(one), folder.read(other), equal_nan=True)
