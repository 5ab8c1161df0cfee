"""The tensors of a Hugging Face folder under their stored names, of a model of any family."""

import re
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from merit_jax.models.io.casting import stored_as
from merit_jax.models.io.disk import check_room
from merit_jax.models.io.drafts import check_free
from merit_jax.models.io.folder_writer import MAX_SHARD_BYTES, copy_other_files, files_to_copy, write_folder
from merit_jax.models.io.hf_folder import INDEX, SINGLE, Folder
from merit_jax.models.io.mapped_file import MappedFile
from merit_jax.models.io.safetensors import DTYPES, STORED, TensorSpec
from merit_jax.models.io.tensor_names import unwrapped

ADAPTER = "adapter_config.json"
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
        if (Path(path) / ADAPTER).is_file() and not any((Path(path) / name).is_file() for name in (SINGLE, INDEX)):
            raise ValueError(
                f"{path}: an adapter ({ADAPTER}) without the model that it belongs to; give that as --base, and "
                "the adapter among --models, of merit merge"
            )
        super().__init__(Path(path), STORED)

    @property
    def dtypes(self) -> set[str]:
        """Names of the floating types that the tensors are stored in."""
        return {spec.dtype.name for spec in self.specs.values() if _floating(spec)}

    def paths(self) -> dict[str, TensorSpec]:
        """Returns tensor name -> shape and the type it is read as, sorted by name."""
        return {key: spec._replace(dtype=_read_as(spec)) for key, spec in sorted(self.specs.items())}

    def read(self, key: str) -> np.ndarray:
        """Reads one tensor; read-only where it is stored in the type that it is read as, and not computed."""
        return self._in_file(key).astype(_read_as(self.specs[key]), copy=False)

    def view(self, key: str) -> np.ndarray | None:
        """Returns one tensor in its file, mapped and in its stored type, read-only; None where it is computed."""
        return self._in_file(key)

    def _in_file(self, key: str) -> np.ndarray:
        file = self._files[key]
        if file not in self._mapped:
            self._mapped[file] = MappedFile(file)
        return self._mapped[file].view(self.specs[key])

    @cached_property
    def _mapped(self) -> dict[Path, MappedFile]:
        return {}

    def linear_map(self, path: str, spec: Any) -> Literal["out_in"] | None:
        """Returns the layout of the matrix of a linear map: two axes, called weight, no embedding or copy of one; else None."""
        text = self.config.get("text_config")
        text = text if isinstance(text, Mapping) else {}
        tied = self.config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
        table = _TABLE.search(path) or (tied and _UNEMBEDDING.search(path))
        return "out_in" if len(spec.shape) == 2 and path.endswith(".weight") and not table else None

    def file_of(self, key: str) -> Path:
        """Returns the file that holds a tensor."""
        return self._files[key]

    def check_export(self, out_dir: str | Path) -> None:
        """Checks that an export can be written, before anything is computed for it.

        Raises:
            ValueError: `out_dir` is in use, or a file that comes along is a link to one elsewhere.
            OSError: A file that comes along cannot be read, or there is no permission or no room for the folder.
        """
        check_free(Path(out_dir))
        check_room(Path(out_dir), sum(spec.nbytes for spec in self.specs.values()))
        files_to_copy(self.path)

    def export(
        self,
        out_dir: str | Path,
        read: Callable[[str], ArrayLike],
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
            ValueError: `out_dir` is in use, or a value is not finite or beyond the range of its type here.
            OSError: A file cannot be read or written, or there is no room for the folder.
        """
        specs = list(self.specs.values())
        place = f"its type in {self.path}; give a base in bfloat16 or float32, or a smaller scale"
        tensors = (stored_as(np.asarray(read(spec.key)), spec.dtype, spec.key, place) for spec in specs)
        plain = [
            spec._replace(key=unwrapped(spec.key)) for spec in specs
        ]  # which transformers would not find otherwise
        write_folder(Path(out_dir), plain, tensors, partial(copy_other_files, self.path), extra, max_shard_bytes)


def _floating(spec: TensorSpec) -> bool:
    return spec.dtype in DTYPES.values()


def _read_as(spec: TensorSpec) -> np.dtype:
    """Returns float32, or the stored type if that is wider or no floating one."""
    return np.promote_types(spec.dtype, np.float32) if _floating(spec) else spec.dtype
