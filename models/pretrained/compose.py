"""A vision-language checkpoint made of parts: some from other checkpoints, the rest random."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from models.interface import SWITCHES, Model, VisionLanguageConfig
from models.pretrained.config_only import ConfigOnlyCheckpoint
from models.pretrained.export import export_hf
from models.pretrained.load import Pretrained, open_pretrained
from models.processing.tokenizer import load_tokenizer

FREE = {*SWITCHES, "family", "mrope_section"}
"""Fields in which a part may differ: a text's tokens have one position, which M-RoPE takes three times to the same effect."""


class Source(NamedTuple):
    """Where a part comes from.

    Attributes:
        opened: A checkpoint that has the part.
        prefix: What the paths of the part's leaves begin with there.
        config: The part's config there.
    """

    opened: Pretrained
    prefix: str
    config: Any


def compose(
    out: str | Path,
    like: str | Path,
    vision: str | Path | None = None,
    projector: str | Path | None = None,
    text: str | Path | None = None,
    seed: int = 0,
    dtype: Any = "float32",
) -> None:
    """Writes a Hugging Face folder of a vision-language model; holds one leaf, or one random part, at a time.

    Args:
        out: Folder to make; must not exist, or be empty. It appears only when it is complete.
        like: Folder with the config.json, tokenizer and image processor of the model; weights in it are not read.
        vision: Vision-language checkpoint whose vision tower goes in; None for a random one.
        projector: The same for the projector.
        text: Text checkpoint (Hugging Face folder or .gguf file), or vision-language one, whose decoder goes in; None for a
            random one.
        seed: Of the random parts: they are what `Model.init` makes from `jax.random.key(seed)`.
        dtype: Type of the tensors.

    Raises:
        ValueError: `like` describes a text model; a part is of another architecture, or the text model of another
            vocabulary; `out` is in use.
    """
    blueprint = ConfigOnlyCheckpoint(like)
    if not isinstance(blueprint.model.config, VisionLanguageConfig):
        raise ValueError(f"{blueprint.config_file}: describes a text model; expected a vision-language model")
    given = {"vision": vision, "projector": projector, "decoder": text}
    sources = {part: _open(blueprint, part, Path(path)) for part, path in given.items() if path is not None}
    if text is not None:
        _check_vocabulary(Path(like), Path(text))
    export_hf(
        out, functools.partial(_read, blueprint.model, sources, _Random(blueprint.model, seed)), blueprint, dtype=dtype
    )


class _Random:
    """Random parts, of which the last one asked for is kept."""

    def __init__(self, model: Model, seed: int):
        self._model, self._seed = model, seed
        self.part = functools.lru_cache(maxsize=1)(self._part)

    def _part(self, part: str) -> dict[str, np.ndarray]:
        """Leaf path inside the part -> values; the other parts are not computed."""
        made = jax.jit(lambda rng: self._model.init(rng)[part])(jax.random.key(self._seed))
        return {path: np.asarray(leaf) for path, leaf in flatten_dict(made, sep="/").items()}


def _read(model: Model, sources: Mapping[str, Source], random: _Random, path: str) -> np.ndarray:
    """One leaf of the new model."""
    part, _, inside = path.partition("/")
    if part in sources:
        return sources[part].opened.read(sources[part].prefix + inside)
    return random.part(part)[inside]


def _open(blueprint: ConfigOnlyCheckpoint, part: str, path: Path) -> Source:
    """The part of a checkpoint, if it is what the blueprint asks for.

    Raises:
        ValueError: The checkpoint has no such part, or one of another architecture; every difference is named.
    """
    opened, wanted = open_pretrained(path), blueprint.model.config
    config, prefix = opened.model.config, f"{part}/"
    if isinstance(config, VisionLanguageConfig):
        found = getattr(config, _FIELD[part])
    elif part == "decoder":
        found, prefix = config, ""
    else:
        raise ValueError(f"{path} is a text model and has no {part}; expected a vision-language checkpoint")
    source = Source(opened, prefix, found)
    differences = [
        *_config_differences(getattr(wanted, _FIELD[part]), found),
        *_shape_differences(blueprint.model, part, source),
    ]
    if differences:
        raise ValueError(f"the {part} of {path} does not fit {blueprint.config_file}: {'; '.join(differences)}")
    return source


_FIELD = {"vision": "vision", "projector": "projector", "decoder": "text"}
"""Part of the params -> field of `VisionLanguageConfig`."""


def _config_differences(wanted: Any, found: Any) -> Iterator[str]:
    """The fields in which a part's config differs from the one wanted."""
    if type(wanted) is not type(found):
        yield f"its kind is {type(found).__name__}, expected {type(wanted).__name__}"
        return
    for field in dataclasses.fields(wanted):
        mine, theirs = getattr(wanted, field.name), getattr(found, field.name)
        if field.name not in FREE and mine != theirs:
            yield f"{field.name} = {theirs}, expected {mine}"


def _shape_differences(model: Model, part: str, source: Source) -> Iterator[str]:
    """The leaves of which a part has more, fewer, or others."""
    wanted = {path: leaf.shape for path, leaf in flatten_dict(model.abstract[part], sep="/").items()}
    found = {path: leaf.shape for path, leaf in source.opened.paths().items() if path.startswith(source.prefix)}
    found = {path.removeprefix(source.prefix): shape for path, shape in found.items()}
    for path in sorted(wanted.keys() | found.keys()):
        if wanted.get(path) != found.get(path):
            yield f"{path} has shape {found.get(path)}, expected {wanted.get(path)}"


def _check_vocabulary(like: Path, text: Path) -> None:
    """Refuses a text model that knows an id by another token."""
    wanted = {number: token for token, number in load_tokenizer(like).get_vocab().items()}
    for token, number in sorted(load_tokenizer(text).get_vocab().items(), key=lambda item: item[1]):
        if wanted.get(number, token) != token:
            raise ValueError(
                f"the vocabulary of {text} is not that of {like}: id {number} is {token!r} there and {wanted[number]!r} here; "
                "use the tokenizer of the text model"
            )
