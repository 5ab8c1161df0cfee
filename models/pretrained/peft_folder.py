"""A PEFT adapter with its base model, read as the folder of a model whose tensors have the adapter written into them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from merit_jax.models.adapters.low_rank import LowRank, fold
from merit_jax.models.io.peft_config import CONFIG, WEIGHTS, PeftConfig, read_peft_config
from merit_jax.models.io.raw_tensors import StoredTensors
from merit_jax.models.io.safetensors import TensorSpec, read_specs, read_tensor
from merit_jax.models.io.tensor_names import canonical_names
from merit_jax.models.processing.config_differences import is_tied

_PREFIX = "base_model.model."
_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)(\.weight)?"
)
_A, _B, _LENGTHS = ("lora_A", "lora_embedding_A"), ("lora_B", "lora_embedding_B"), "lora_magnitude_vector"
_FROZEN = ".base_layer"
"""In the names of an embedding's or a head's own weights, which PEFT saves beside their update."""
_TIED = re.compile(r"(.*\.)?(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|shared|lm_head)\.weight")


class Update(NamedTuple):
    """The update of one tensor.

    Attributes:
        module: Name of the module, as the adapter has it.
        parts: Name of a part, as "lora_A" -> name of its tensor.
        out_in: Whether the base's tensor is [out, in]: the module is a linear layer of PyTorch.
    """

    module: str
    parts: Mapping[str, str]
    out_in: bool

    @property
    def of_table(self) -> bool:
        """True if the module looks up rows."""
        return _A[1] in self.parts


class AdaptedTensors(StoredTensors):
    """The tensors of a base model with an adapter written into them, each when it is read.

    Args:
        path: Folder of the adapter.
        base: The model that it was trained on.

    Raises:
        ValueError: The adapter is damaged, asks for what is not computed here, or does not fit the base.
    """

    def __init__(self, path: str | Path, base: StoredTensors):
        self.path, self.base, self.config, self.specs = Path(path), base, base.config, base.specs
        self.config_file, self._weights = str(self.path / CONFIG), self.path / WEIGHTS
        self.settings: PeftConfig = read_peft_config(self.path)
        if not self._weights.is_file():
            raise ValueError(f"{self.path}: {WEIGHTS} is missing (only safetensors are read, never pickles)")
        self._stored = read_specs(self._weights)
        self.updates, self.whole = _sorted_out(self._stored, base, self.settings, self._weights)
        changed = {**self.updates, **self.whole}
        self._files = {key: self._weights if key in changed else base.file_of(key) for key in base.specs}
        if is_tied(base.config) and (odd := next((key for key in changed if _TIED.fullmatch(key)), None)):
            raise ValueError(
                f"{self._weights}: it changes {odd}, which the base ties to another tensor; train embedding and head without the "
                "adapter, or untie them in the base"
            )

    def read(self, key: str) -> np.ndarray:
        """Reads one tensor of the base, with its update."""
        whole = self.whole.get(key)
        tensor = self.base.read(key) if whole is None else _read(self._weights, whole)
        if key not in self.updates:
            return tensor
        found = self.updates[key]
        lengths = [self._part(found, name).reshape(-1) for name in (_LENGTHS,) if name in found.parts]
        turned = fold(tensor.T if found.out_in else tensor, self.update(key), *lengths)
        return turned.T if found.out_in else turned

    def view(self, key: str) -> np.ndarray | None:
        """Returns one tensor of the base in its file; None for one that the adapter changes."""
        return None if key in self.updates or key in self.whole else self.base.view(key)

    def update(self, key: str) -> LowRank:
        """Reads the update of a tensor, [in, rank] and [rank, out], with its scale in B."""
        found = self.updates[key]
        a, b = (self._part(found, names[found.of_table]) for names in (_A, _B))
        return LowRank(a.T, np.float32(self.settings.scale_of(found.module)) * b.T)

    def _part(self, update: Update, name: str) -> np.ndarray:
        return _read(self._weights, update.parts[name])


def _read(file: Path, key: str) -> np.ndarray:
    return read_tensor(file, key).astype(np.float32, copy=False)


def _sorted_out(
    stored: Mapping[str, TensorSpec], base: StoredTensors, settings: PeftConfig, file: Path
) -> tuple[dict[str, Update], dict[str, str]]:
    """Returns the base's tensor -> its update, and -> the tensor that is stored in its place."""
    parts: dict[str, dict[str, str]] = {}
    whole: dict[str, str] = {}
    for key in stored:
        name = key.removeprefix(_PREFIX)
        if name == key:
            raise ValueError(f"{file}: tensor {key!r} has no place in a LoRA of PEFT: its name begins with {_PREFIX!r}")
        if found := _PART.fullmatch(name):
            parts.setdefault(found["module"], {})[found["part"]] = key
        else:
            whole[name] = key
    frozen = {name.replace(_FROZEN, ""): whole.pop(name) for name in list(whole) if _FROZEN in name}
    names = _names_in_base(base, {*(f"{module}.weight" for module in parts), *whole, *frozen}, file)
    updates = {
        names[f"{module}.weight"]: _checked(module, found, stored, base, names, settings, file)
        for module, found in parts.items()
    }
    for name, key in whole.items():
        _check_whole(name, key, stored, base.specs[names[name]], settings, file)
    for name, key in frozen.items():
        _check_shape(name, stored[key], base.specs[names[name]], file)
    copies = [name for name, key in frozen.items() if np.array_equal(_read(file, key), base.read(names[name]))]
    return updates, {names[name]: key for name, key in {**whole, **frozen}.items() if name not in copies}


def _names_in_base(base: StoredTensors, wanted: set[str], file: Path) -> dict[str, str]:
    """Returns the names of tensors as the base stores them, whatever version of transformers named them."""
    kind = base.config.get("model_type")
    ours, theirs = canonical_names(kind, base.specs), canonical_names(kind, wanted)
    if missing := sorted(theirs.keys() - ours.keys()):
        raise ValueError(
            f"{file}: {theirs[missing[0]]} is no tensor of {base.path}: the adapter was trained on another model; give "
            "that as the base"
        )
    return {theirs[name]: ours[name] for name in theirs}


def _checked(
    module: str,
    parts: Mapping[str, str],
    stored: Mapping[str, TensorSpec],
    base: StoredTensors,
    names: Mapping[str, str],
    settings: PeftConfig,
    file: Path,
) -> Update:
    """Returns the update of a module whose parts are there and fit the base's tensor."""
    table = _A[1] in parts
    expected = {_A[table], _B[table], *((_LENGTHS,) if settings.dora else ())}
    if table and settings.dora:
        raise ValueError(f"{file}: {module}: DoRA of an embedding is not computed here; merge_and_unload it with peft")
    if odd := sorted(expected ^ parts.keys()):
        what = "is missing" if odd[0] in expected else f"is there, but use_dora = {settings.dora}"
        raise ValueError(f"{file}: {module}: {odd[0]} {what}; the adapter is incomplete")
    shape = base.specs[names[f"{module}.weight"]].shape
    a, b = (stored[parts[names_[table]]].shape for names_ in (_A, _B))
    if len(a) != 2 or len(b) != 2 or len(shape) != 2:
        raise ValueError(
            f"{file}: {module}: {list(a)} is an update of a convolution, which is not merged here; merge_and_unload it"
        )
    sides, rank = (a[1], b[0]), settings.rank_of(module)
    square = sides[0] == sides[1]
    out_in = not table and (not settings.transposed if square else shape != sides)
    if (shape[::-1] if out_in else shape) != sides or a[0] != b[1]:
        raise ValueError(f"{file}: {module}: A {list(a)} and B {list(b)} do not fit {list(shape)} of the base")
    if a[0] != rank:
        raise ValueError(
            f"{file}: {module} has rank {a[0]}, and {CONFIG} says {rank}; the two belong to different adapters"
        )
    return Update(module, parts, out_in)


def _check_whole(
    name: str, key: str, stored: Mapping[str, TensorSpec], spec: TensorSpec, settings: PeftConfig, file: Path
) -> None:
    """Refuses a tensor that is stored whole though the config does not say so, or in another shape than the base's.

    PEFT stores every module whose name ends in one of `modules_to_save`, within a word too.
    """
    if not any(name.rpartition(".")[0].endswith(end) for end in settings.whole):
        raise ValueError(
            f"{file}: tensor {key!r} is no part of a LoRA, and not of modules_to_save = {list(settings.whole)}"
        )
    _check_shape(name, stored[key], spec, file)


def _check_shape(name: str, found: TensorSpec, spec: TensorSpec, file: Path) -> None:
    if found.shape != spec.shape:
        raise ValueError(
            f"{file}: {name} is {list(found.shape)}, and {list(spec.shape)} in the base: tokens were added, so give the "
            "base with the same vocabulary"
        )
