"""Pretrained checkpoints (Hugging Face folders and GGUF) into params, leaf by leaf."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from models.build_model import Config, build, override
from models.families.registry import parse_config, weight_map
from models.interface import DecoderConfig, Model, Params, VisionLanguageConfig
from models.io.hf_folder import Checkpoint, open_checkpoint
from models.io.weight_map import Place, WeightMap, part_of


def read_config(path: str | Path, **overrides: Any) -> Config:
    """What a checkpoint is the params of, without its weights.

    Args:
        path: Hugging Face folder or .gguf file.
        **overrides: Fields to replace, as for `models.build_model.override`.

    Raises:
        ValueError: The checkpoint is damaged or asks for what the model does not do.
    """
    checkpoint = open_checkpoint(path)
    return override(parse_config(checkpoint.config, checkpoint.config_file), overrides)


def load_pretrained(
    path: str | Path, *, param_dtype: Any = jnp.float32, shardings: Any = None, **overrides: Any
) -> tuple[Model, Params]:
    """A pretrained model and its params; holds one leaf on the host at a time.

    Args:
        path: Hugging Face folder or .gguf file.
        param_dtype: Type of the parameters.
        shardings: Tree like the params of where each leaf goes, or a function from the model to one; None for the
            default device.
        **overrides: Fields of the config to replace, such as dtype, remat, scan_unroll, attention.

    Returns:
        The model, and the nested dict of its parameters.

    Raises:
        ValueError: The checkpoint is damaged or incomplete, does not fit its config, or asks for what the model
            does not do.
    """
    opened = open_pretrained(path, param_dtype=param_dtype, **overrides)
    puts = _puts(shardings(opened.model) if callable(shardings) else shardings, opened.plan)
    leaves = {leaf: puts[leaf](opened.read(leaf)) for leaf in opened.paths()}
    return opened.model, unflatten_dict(leaves, sep="/")


_SIZES = ("layers", "hidden_size", "heads", "head_dim", "mlp_size", "vocab_size", "grid")
"""What a config says of its model that some tensor is at least as long as."""


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A checkpoint whose leaves are read one at a time.

    Attributes:
        checkpoint: The open files.
        model: What the checkpoint is the params of.
        plan: Which tensors make up which leaf.
    """

    checkpoint: Checkpoint
    model: Model
    plan: WeightMap

    def paths(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Leaf path -> shape and dtype, sorted by path."""
        return dict(sorted(flatten_dict(self.model.abstract, sep="/").items()))

    def read(self, path: str) -> np.ndarray:
        """One leaf, on the host."""
        return _read_leaf(self.checkpoint, self.plan.leaves[path], self.paths()[path])


def open_pretrained(path: str | Path, *, param_dtype: Any = jnp.float32, **overrides: Any) -> Pretrained:
    """A pretrained model, without its weights until they are read; arguments as for `load_pretrained`."""
    checkpoint = open_checkpoint(path)
    config = parse_config(checkpoint.config, checkpoint.config_file)
    _check_sizes(config, checkpoint)
    model = build(override(config, {"param_dtype": param_dtype, **overrides}))
    return Pretrained(checkpoint, model, plan_of(model, checkpoint))


def leaf_keys(model: Model, path: str | Path) -> dict[str, tuple[Place, ...]]:
    """Leaf path -> the tensors of the checkpoint at `path` that hold it, with their layers."""
    return plan_of(model, open_checkpoint(path)).leaves


def plan_of(model: Model, checkpoint: Checkpoint) -> WeightMap:
    """How a checkpoint's tensors and a model's leaves correspond.

    Raises:
        ValueError: A tensor is missing, unknown or of another shape.
    """
    return weight_map(model, {key: spec.shape for key, spec in checkpoint.specs.items()}, str(checkpoint.path))


def _check_sizes(config: DecoderConfig | VisionLanguageConfig, checkpoint: Checkpoint) -> None:
    """Refuses a config that is larger than its files, before anything of that size is made.

    Raises:
        ValueError: There are more layers than tensors, or a size is larger than that of any tensor.
    """
    most = max((n for spec in checkpoint.specs.values() if spec.nbytes for n in spec.shape), default=0)
    for part in (config.text, config.vision) if isinstance(config, VisionLanguageConfig) else (config,):
        for name in _SIZES:
            size, limit = getattr(part, name, 0), len(checkpoint.specs) if name == "layers" else most
            if size > limit:
                raise ValueError(
                    f"{checkpoint.config_file}: {name} = {size}, but the files hold {limit} "
                    f"{'tensors' if name == 'layers' else 'at most along any axis'}; the checkpoint is incomplete, or the config "
                    "describes another model"
                )


def _puts(shardings: Any, plan: WeightMap) -> dict[str, Callable[[np.ndarray], jax.Array]]:
    """Per leaf, the function that takes it from the host to its devices."""
    if shardings is None:
        return dict.fromkeys(plan.leaves, jnp.asarray)
    targets = flatten_dict(shardings, sep="/")
    if set(targets) != set(plan.leaves):
        odd = sorted(set(targets) ^ set(plan.leaves))[0]
        raise ValueError(f"shardings and params differ at {odd!r}; expected one sharding per leaf")

    def put(sharding: jax.sharding.Sharding) -> Callable[[np.ndarray], jax.Array]:
        return lambda array: jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return {leaf: put(sharding) for leaf, sharding in targets.items()}


def _read_leaf(checkpoint: Checkpoint, places: tuple[Place, ...], abstract: jax.ShapeDtypeStruct) -> np.ndarray:
    """One leaf, from its tensors.

    Raises:
        ValueError: Two tensors that must be the same are not.
    """
    leaf = np.empty(abstract.shape, abstract.dtype)
    first: dict[int | None, str] = {}
    for place in places:
        tensor = checkpoint.read(place.key)
        if place.layer in first:
            _check_same(checkpoint, tensor, first[place.layer], place.key)
            continue
        first[place.layer] = place.key
        leaf[... if place.layer is None else place.layer] = part_of(tensor, place)
    return leaf


def _check_same(checkpoint: Checkpoint, tensor: np.ndarray, first: str, second: str) -> None:
    """A tied unembedding that is stored must be the embedding."""
    other = checkpoint.read(first)
    if other.dtype != tensor.dtype or other.tobytes() != tensor.tobytes():
        raise ValueError(
            f"{checkpoint.path}: {first!r} and {second!r} differ, but the config ties them; "
            "set tie_word_embeddings to false in config.json"
        )
