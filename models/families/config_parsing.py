"""Reads a Hugging Face config.json strictly: a setting that the models do not implement is refused by name."""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from merit_jax.models.io.errors import raise_if_of_machine
from merit_jax.models.processing.config_defaults import with_defaults

LARGEST = 2**31 - 1
"""Largest whole number of a config: sizes are numbers of rows, columns and layers."""
_WIDEST = 1e300
"""Largest number: more is no size of anything; infinity and NaN are beyond it."""
MOST_LAYERS = 2**14
"""Layers that a config may have: transformers makes a list as long."""
PARTS = ("text_config", "vision_config")
DIVISORS = (
    "num_attention_heads",
    "num_key_value_heads",
    "num_heads",
    "patch_size",
    "spatial_merge_size",
    "window_size",
)
"""Numbers that transformers divides by while it reads a config."""
_UNREAD = ("dtype", "torch_dtype", "id2label", "label2id", "num_labels", "problem_type")
"""Keys that change no model of ours: types are chosen by the caller, labels are of classifiers."""
Made = TypeVar("Made")


class Section:
    """A dictionary of a config.json whose values are checked as they are read; a ValueError names the file and the key.

    Attributes:
        raw: The dictionary.
        where: The file, and the key of the dictionary in it, for error messages.
    """

    def __init__(self, raw: Mapping[str, Any], where: str):
        self.raw, self.where = raw, where

    def get(self, key: str, default: Any = None) -> Any:
        """Returns a value unchecked; absent or null gives the default."""
        value = self.raw.get(key)
        return default if value is None else value

    def expect(self, key: str, *allowed: Any) -> None:
        """Refuses a value that is none of those allowed (None stands for absent)."""
        if self.raw.get(key) not in allowed:
            choices = " or ".join(repr(value) for value in allowed if value is not None)
            self.refuse(key, self.raw.get(key), f" is not supported; expected {choices or 'it absent'}")

    def integer(self, key: str, default: int | None = None) -> int:
        """Returns a whole number; refuses an absent one without a default."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > LARGEST:
            self.refuse(key, value, f"; expected a whole number, {LARGEST} at most")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Returns a number; refuses an absent one without a default."""
        value = self.get(key, default)
        known = not isinstance(value, bool) and isinstance(value, int | float) and -_WIDEST <= value <= _WIDEST
        return float(value) if known else self.refuse(key, value, "; expected a number")

    def positive(self, key: str) -> float:
        """Returns a number above 0; refuses an absent one."""
        found = self.number(key)
        return found if found > 0 else self.refuse(key, found, "; expected more than 0")

    def switch(self, key: str) -> bool:
        """Returns whether a setting is on; absent or null is off."""
        self.expect(key, None, True, False)
        return bool(self.raw.get(key))

    def section(self, key: str) -> "Section":
        """Returns a nested dictionary; refuses anything else."""
        found = self.raw.get(key)
        if not isinstance(found, Mapping):
            self.refuse(key, found, "; expected a dictionary")
        return Section(found, f"{self.where}: {key}")

    def make(self, kind: Callable[..., Made], *fields: Any, **named: Any) -> Made:
        """Returns `kind(*fields, **named)`; a ValueError of it names the file."""
        try:
            return kind(*fields, **named)
        except ValueError as error:
            raise ValueError(f"{self.where}: {error}") from None

    def refuse(self, key: str, value: Any, reason: str) -> NoReturn:
        """Raises a ValueError about the value of a key."""
        raise ValueError(f"{self.where}: {key} = {value!r:.80}{reason}")


def completed(config: Section) -> Section:
    """Returns a config.json as transformers understands it: old keys translated, every default written out.

    Raises:
        ValueError: It asks for quantisation or for other settings in some layers, or transformers cannot read it.
    """
    if config.raw.get("is_causal", True) is not True:
        config.refuse("is_causal", config.raw["is_causal"], " is not supported; expected True")
    for level in (config, *(config.section(part) for part in PARTS if config.get(part) is not None)):
        level.expect("quantization_config", None)
        level.expect("per_layer_config", None)
        if not isinstance(level.get("layer_types", []), list | tuple):
            level.refuse("layer_types", level.raw["layer_types"], "; expected a list")
        if level.integer("num_hidden_layers", 0) > MOST_LAYERS:
            level.refuse("num_hidden_layers", level.raw["num_hidden_layers"], f"; expected {MOST_LAYERS} at most")
        for key in DIVISORS:
            if level.get(key) is not None and level.integer(key) < 1:
                level.refuse(key, level.raw[key], "; expected 1 or more")
    try:
        full = with_defaults(_read(config.raw))
    except Exception as error:  # transformers fails on odd values in any way: StrictDataclassError, AttributeError, ...
        raise_if_of_machine(error, config.where)
        said = " ".join(str(error).split())
        raise ValueError(f"{config.where}: not a config that transformers can read: {said}") from None
    return Section(full, config.where)


def _read(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config without the keys of `_UNREAD`."""
    return {
        key: _read(value) if key in PARTS and isinstance(value, Mapping) else value
        for key, value in raw.items()
        if key not in _UNREAD
    }
