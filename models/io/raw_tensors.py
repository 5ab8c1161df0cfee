"""The tensors of a Hugging Face folder under their stored names, of a model of any family."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from models.interface import Array
from models.io.folder_writer import MAX_SHARD_BYTES, copy_other_files, write_folder
from models.io.hf_folder import Folder, read_json
from models.io.safetensors import STORED, TensorSpec

_TABLE = re.compile(r"emb|\bw[tp]e\b|\bshared\b")
"""In the names of tensors that are looked up by rows: embeddings of tokens and positions."""
_UNEMBEDDING = re.compile(r"\blm_head\b")


class StoredTensors(Folder):
    """A folder whose tensors are read as float32, or as they are if that is wider or no floating type.

    Args:
        path: Hugging Face folder of safetensors, single or sharded.

    Raises:
        ValueError: It is not there, damaged or incomplete, or a tensor is quantised.
    """

    def __init__(self, path: str | Path):
        if not Path(path).is_dir():
            raise ValueError(f"{path}: expected a Hugging Face folder (config.json and safetensors)")
        super().__init__(Path(path), STORED)

    @property
    def dtypes(self) -> set[str]:
        """Names of the floating types that the tensors are stored in."""
        return {spec.dtype.name for spec in self.specs.values() if _floating(spec)}

    def paths(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns tensor name -> shape and the type it is read as, sorted by name."""
        return {key: jax.ShapeDtypeStruct(spec.shape, _read_as(spec)) for key, spec in sorted(self.specs.items())}

    def read(self, key: str) -> np.ndarray:
        """Reads one tensor."""
        return super().read(key).astype(_read_as(self.specs[key]), copy=False)

    def linear_map(self, path: str, spec: jax.ShapeDtypeStruct) -> Literal["out_in"] | None:
        """Returns the layout of the matrix of a linear map: two axes, called weight, no embedding or copy of one; else None."""
        text = self.config.get("text_config")
        text = text if isinstance(text, Mapping) else {}
        tied = self.config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
        table = _TABLE.search(path) or (tied and _UNEMBEDDING.search(path))
        return "out_in" if len(spec.shape) == 2 and path.endswith(".weight") and not table else None

    def export(
        self,
        out_dir: str | Path,
        read: Callable[[str], Array],
        extra: Mapping[str, str],
        max_shard_bytes: int = MAX_SHARD_BYTES,
    ) -> None:
        """Writes a folder like this one with other values, in the types of this one, holding one tensor at a time.

        Args:
            out_dir: Folder to make; must not exist, or be empty. It appears only when it is complete.
            read: Tensor name -> values.
            extra: Text files to add: file name -> content.
            max_shard_bytes: A new file is begun before this size is passed.

        Raises:
            ValueError: `out_dir` is in use, or a value is beyond the range of its type here.
        """
        specs = list(self.specs.values())
        tensors = (self._cast(spec, np.asarray(read(spec.key))) for spec in specs)
        write_folder(Path(out_dir), specs, tensors, partial(copy_other_files, self.path), extra, max_shard_bytes)

    def _cast(self, spec: TensorSpec, values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            cast = values.astype(spec.dtype, copy=False)
        if cast.dtype != values.dtype and not np.isfinite(cast).all():
            raise ValueError(
                f"{spec.key}: values up to {np.abs(values).max():.4g} do not fit {spec.dtype}, its type in {self.path}; "
                "give a base in bfloat16 or float32, or a smaller scale"
            )
        return cast


def check_vocabularies(base: str | Path, other: str | Path) -> None:
    """Refuses a model in which an id has another token than in the base, where both have a tokenizer.json.

    Raises:
        ValueError: They differ, or one is damaged.
    """
    ours, theirs = _vocabulary(Path(base)), _vocabulary(Path(other))
    same_vocabulary(ours, theirs, str(base), str(other), "merge models of one tokenizer only")


def same_vocabulary(ours: Mapping[int, str], theirs: Mapping[int, str], base: str, other: str, remedy: str) -> None:
    """Refuses two vocabularies, id -> token, in which an id has different tokens."""
    for number in sorted(ours.keys() & theirs.keys()):
        if ours[number] != theirs[number]:
            raise ValueError(
                f"the vocabulary of {other} is not that of {base}: id {number} is {theirs[number]!r} there and "
                f"{ours[number]!r} here; {remedy}"
            )


def _vocabulary(folder: Path) -> dict[int, str]:
    """Reads id -> token; empty where there is no tokenizer.json."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return {}
    content = read_json(file)
    try:
        vocabulary = content["model"]["vocab"]
        listed = isinstance(vocabulary, list)  # of pairs of token and score; else token -> id
        found = dict(enumerate(row[0] for row in vocabulary) if listed else ((n, t) for t, n in vocabulary.items()))
        found |= {token["id"]: token["content"] for token in content.get("added_tokens", ())}
        if not all(type(number) is int for number in found):
            raise TypeError("an id is no whole number")
        return found
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{file}: expected a tokenizer with a vocabulary ({error!r})") from None


def _floating(spec: TensorSpec) -> bool:
    return jnp.issubdtype(spec.dtype, jnp.floating)


def _read_as(spec: TensorSpec) -> np.dtype:
    """Returns float32, or the stored type if that is wider or no floating one."""
    return np.promote_types(spec.dtype, np.float32) if _floating(spec) else spec.dtype
