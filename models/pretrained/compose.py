"""Composes a vision-language checkpoint of parts: some from other checkpoints, the rest random."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from merit_jax.models.interface import SWITCHES, Model, VisionLanguageConfig
from merit_jax.models.pretrained.config_only import ConfigOnlyCheckpoint
from merit_jax.models.pretrained.export import export_hf
from merit_jax.models.pretrained.load import Pretrained, open_pretrained, plan_of
from merit_jax.models.processing.tokenizer import load_tokenizer
from merit_jax.models.processing.vocabulary import same_vocabulary

FREE = {*SWITCHES, "family", "mrope_section", "mrope_interleaved"}
"""Fields in which a part may differ: a text's tokens have one position, which M-RoPE takes three times to the same effect."""


Reader = Callable[[str], np.ndarray]
"""Path of a leaf inside a part -> the leaf."""


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
        seed: Of the random parts: they are those of `Model.init(jax.random.key(seed))`.
        dtype: Type of the tensors.

    Raises:
        ValueError: `like` describes a text model; a part is of another architecture, or the text model of another
            vocabulary; `out` is in use.
    """
    blueprint = ConfigOnlyCheckpoint(like)
    if not isinstance(blueprint.model.config, VisionLanguageConfig):
        raise ValueError(f"{blueprint.config_file}: describes a text model; expected a vision-language model")
    model, given = blueprint.model, {"vision": vision, "projector": projector, "decoder": text}
    readers = {part: _open(blueprint, part, Path(path)) for part, path in given.items() if path is not None}
    if text is not None:
        ours, theirs = ({n: token for token, n in load_tokenizer(p).get_vocab().items()} for p in (like, text))
        same_vocabulary(ours, theirs, str(like), str(text), "use the tokenizer of the text model")
    random = _random_parts(model, seed)

    def read(path: str) -> np.ndarray:
        part, _, inside = path.partition("/")
        return readers[part](inside) if part in readers else random(part)[inside]

    export_hf(out, read, Pretrained(blueprint, model, plan_of(model, blueprint)), dtype=dtype)


def _random_parts(model: Model, seed: int) -> Callable[[str], dict[str, np.ndarray]]:
    """Returns a function from a part to its random leaves by path; it keeps the last part, and computes no other."""

    @functools.lru_cache(maxsize=1)
    def made(part: str) -> dict[str, np.ndarray]:
        leaves = jax.jit(lambda rng: model.init(rng)[part])(jax.random.key(seed))
        return {path: np.asarray(leaf) for path, leaf in flatten_dict(leaves, sep="/").items()}

    return made


def _open(blueprint: ConfigOnlyCheckpoint, part: str, path: Path) -> Reader:
    """Opens the part of a checkpoint, if it fits the blueprint.

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
    differences = [
        *_config_differences(getattr(wanted, _FIELD[part]), found),
        *_shape_differences(blueprint.model.abstract[part], opened, prefix),
    ]
    if differences:
        raise ValueError(f"the {part} of {path} does not fit {blueprint.config_file}: {'; '.join(differences)}")
    return lambda inside: opened.read(prefix + inside)


_FIELD = {"vision": "vision", "projector": "projector", "decoder": "text"}
"""Part of the params -> field of `VisionLanguageConfig`."""


def _config_differences(wanted: Any, found: Any) -> Iterator[str]:
    """Yields the fields in which a part's config differs from the one wanted."""
    if type(wanted) is not type(found):
        yield f"its kind is {type(found).__name__}, expected {type(wanted).__name__}"
        return
    for field in dataclasses.fields(wanted):
        mine, theirs = getattr(wanted, field.name), getattr(found, field.name)
        if field.name not in FREE and mine != theirs:
            yield f"{field.name} = {theirs}, expected {mine}"


def _shape_differences(abstract: Any, opened: Pretrained, prefix: str) -> Iterator[str]:
    """Yields the leaves of which a part has more, fewer, or others."""
    wanted = {path: leaf.shape for path, leaf in flatten_dict(abstract, sep="/").items()}
    inside = {path: leaf.shape for path, leaf in opened.paths().items() if path.startswith(prefix)}
    found = {path.removeprefix(prefix): shape for path, shape in inside.items()}
    for path in sorted(wanted.keys() | found.keys()):
        if wanted.get(path) != found.get(path):
            yield f"{path} has shape {found.get(path)}, expected {wanted.get(path)}"
