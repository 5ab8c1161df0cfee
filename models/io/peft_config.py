"""`adapter_config.json` of PEFT: what it asks for is computed as PEFT does, or refused by name."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from merit_jax.models.io.hf_folder import INDEX, SINGLE, read_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_INITIAL = (True, False, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights` that leave the base model's weights as they are."""

_NEUTRAL = {
    "auto_mapping", "base_model_name_or_path", "eva_config", "exclude_modules", "inference_mode", "layers_pattern",
    "layers_to_transform", "lora_dropout", "megatron_config", "megatron_core", "peft_type", "peft_version", "qalora_group_size",
    "revision", "runtime_config", "target_modules", "task_type",
}  # fmt: skip
"""Keys that say what was trained and how; the stored tensors say what there is."""

_READ = {
    "alpha_pattern", "bias", "fan_in_fan_out", "init_lora_weights", "lora_alpha", "modules_to_save", "r", "rank_pattern",
    "use_dora", "use_rslora",
}  # fmt: skip


class PeftConfig(NamedTuple):
    """The content of an `adapter_config.json` that decides what an adapter computes.

    Attributes:
        rank: r, of the modules that `ranks` does not name.
        alpha: Numerator of the scaling, likewise.
        ranks: Regular expression over the ends of module names -> r.
        alphas: The same -> alpha.
        square_root: Whether alpha is divided by √r (rsLoRA).
        dora: Whether there are lengths of columns.
        transposed: Whether square weights are [in, out] (GPT-2's).
        whole: Ends of names of the modules that are stored whole.
    """

    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    square_root: bool
    dora: bool
    transposed: bool
    whole: Sequence[str]

    def rank_of(self, module: str) -> int:
        """Returns r of a module."""
        return self.ranks.get(_first_match(self.ranks, module), self.rank)

    def scale_of(self, module: str) -> float:
        """Returns the factor of a module's B A."""
        rank, alpha = self.rank_of(module), self.alphas.get(_first_match(self.alphas, module), self.alpha)
        return alpha / (math.sqrt(rank) if self.square_root else rank)


def is_adapter(folder: str | Path) -> bool:
    """Returns whether a folder holds an adapter of PEFT without a model."""
    path = Path(folder)
    return (path / CONFIG).is_file() and not any((path / name).is_file() for name in (SINGLE, INDEX))


def read_peft_config(folder: Path) -> PeftConfig:
    """Reads the `adapter_config.json` of a folder.

    Raises:
        ValueError: It is damaged, is of another method than LoRA, or asks for what is not computed here; the key is named.
    """
    file = folder / CONFIG
    raw = read_json(file)
    if raw.get("peft_type") != "LORA":
        raise ValueError(
            f"{file}: peft_type = {raw.get('peft_type')!r}; only LORA (with rsLoRA and DoRA) is merged: write another adapter "
            "into its model first (peft: merge_and_unload)"
        )
    _refuse(raw, file)
    ranks, alphas = (_pattern(raw, key, file) for key in ("rank_pattern", "alpha_pattern"))
    whole = raw.get("modules_to_save") or []
    if not isinstance(whole, list) or not all(isinstance(name, str) for name in whole):
        raise ValueError(f"{file}: modules_to_save = {whole!r}; expected a list of names")
    return PeftConfig(
        int(_number(raw, "r", file)),
        _number(raw, "lora_alpha", file),
        {key: int(value) for key, value in ranks.items()},
        alphas,
        bool(raw.get("use_rslora")),
        bool(raw.get("use_dora")),
        bool(raw.get("fan_in_fan_out")),
        whole,
    )


def _refuse(raw: Mapping[str, Any], file: Path) -> None:
    """Refuses keys with which an adapter computes something else than `x (W + s A B)`."""
    start = raw.get("init_lora_weights", True)
    if start not in _INITIAL:
        raise ValueError(
            f"{file}: init_lora_weights = {start!r} changes the base model's weights before training, so the adapter does not "
            "belong to the base as it is; save it with path_initial_model_for_weight_conversion, or merge_and_unload it"
        )
    if raw.get("bias", "none") != "none":
        raise ValueError(
            f"{file}: bias = {raw['bias']!r}: trained biases are not read from an adapter; write it into its model first (peft: "
            "merge_and_unload)"
        )
    loftq = raw.get("loftq_config")
    known = _NEUTRAL | _READ | ({"loftq_config"} if not loftq else set())
    for key, value in raw.items():
        if key not in known and value not in (None, False, [], {}):
            raise ValueError(
                f"{file}: {key} = {value!r:.60} is not computed here; write the adapter into its model first (peft: "
                "merge_and_unload)"
            )


def _first_match(patterns: Iterable[str], module: str) -> str:
    """Returns the first pattern that matches the end of a module's name, after a dot, as PEFT looks it up; "" if none does."""
    return next((pattern for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", module)), "")


def _number(raw: Mapping[str, Any], key: str, file: Path) -> float:
    value = raw.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"{file}: {key} = {value!r}; expected a number above 0")
    return float(value)


def _pattern(raw: Mapping[str, Any], key: str, file: Path) -> Mapping[str, float]:
    found = raw.get(key) or {}
    if not isinstance(found, dict):
        raise ValueError(f"{file}: {key} = {found!r:.60}; expected an object, from names of modules to numbers")
    for pattern in found:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{file}: {key}: {pattern!r} is no regular expression ({error})") from None
    return {pattern: _number(found, pattern, file) for pattern in found}
