"""Loads pretrained checkpoints (Hugging Face folders and GGUF files) into params, leaf by leaf."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from merit_jax.models.build_model import Config, build, override
from merit_jax.models.families.registry import FAMILIES, parse_config
from merit_jax.models.interface import Model, Params, VisionLanguageConfig
from merit_jax.models.io.checkpoint import Checkpoint, open_checkpoint
from merit_jax.models.io.tensor_names import canonical_names
from merit_jax.models.io.weight_map import Place, WeightMap, leaf_shapes, match, part_of


def read_config(path: str | Path, **overrides: Any) -> Config:
    """Reads the config of a checkpoint, without its weights.

    Args:
        path: Hugging Face folder or .gguf file.
        **overrides: Fields to replace, as for `merit_jax.models.build_model.override`.

    Raises:
        ValueError: The checkpoint is damaged or asks for what the model does not implement.
    """
    checkpoint = open_checkpoint(path)
    return override(parse_config(checkpoint.config, checkpoint.config_file), overrides)


def load_pretrained(
    path: str | Path, *, param_dtype: Any = jnp.float32, shardings: Any = None, **overrides: Any
) -> tuple[Model, Params]:
    """Loads a pretrained model and its params, holding one leaf on the host at a time.

    Args:
        path: Hugging Face folder or .gguf file.
        param_dtype: Type of the parameters.
        shardings: Tree like the params of the shardings of the leaves, or a function from the model to one; None for the
            default device.
        **overrides: Fields of the config to replace, such as dtype, remat, scan_unroll, attention.

    Returns:
        The model, and the nested dict of its parameters.

    Raises:
        ValueError: The checkpoint is damaged or incomplete, does not fit its config, or asks for what the model
            does not implement.
    """
    opened = open_pretrained(path, param_dtype=param_dtype, **overrides)
    puts = _puts(shardings(opened.model) if callable(shardings) else shardings, opened.plan)
    leaves = {leaf: puts[leaf](opened.read(leaf)) for leaf in opened.paths()}
    return opened.model, unflatten_dict(leaves, sep="/")


_SIZES = ("layers", "hidden_size", "heads", "head_dim", "mlp_size", "vocab_size", "grid", "position_rows")
"""Sizes of a config that the longest axis of some tensor reaches."""


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A checkpoint whose leaves are read one at a time.

    Attributes:
        checkpoint: The open files.
        model: The model whose params the checkpoint holds.
        plan: The tensors of each leaf.
    """

    checkpoint: Checkpoint
    model: Model
    plan: WeightMap

    def paths(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns leaf path -> shape and dtype, sorted by path."""
        return dict(sorted(flatten_dict(self.model.abstract, sep="/").items()))

    def read(self, path: str) -> np.ndarray:
        """Reads one leaf to the host.

        Raises:
            ValueError: Two tensors that must be the same are not.
        """
        abstract = self.paths()[path]
        leaf = np.empty(abstract.shape, abstract.dtype)
        first: dict[tuple[int, ...], str] = {}
        for place in self.plan.leaves[path]:
            tensor, same = self.checkpoint.read(place.key), first.setdefault(place.at, place.key)
            if same == place.key:
                leaf[place.at] = part_of(tensor, place)
            elif not _equal(self.checkpoint.read(same), tensor):
                raise ValueError(
                    f"{self.checkpoint.path}: {same!r} and {place.key!r} differ, but the config ties them; "
                    "set tie_word_embeddings to false in config.json"
                )
        return leaf


def open_pretrained(path: str | Path, *, param_dtype: Any = jnp.float32, **overrides: Any) -> Pretrained:
    """Opens a pretrained model, whose weights are read later; arguments as for `load_pretrained`."""
    checkpoint = open_checkpoint(path)
    config = parse_config(checkpoint.config, checkpoint.config_file)
    _check_sizes(config, checkpoint)
    model = build(override(config, {"param_dtype": param_dtype, **overrides}))
    return Pretrained(checkpoint, model, plan_of(model, checkpoint))


def leaf_keys(model: Model, path: str | Path) -> dict[str, tuple[Place, ...]]:
    """Returns leaf path -> the tensors of the checkpoint at `path` that hold it, with their layers."""
    return plan_of(model, open_checkpoint(path)).leaves


def plan_of(model: Model, checkpoint: Checkpoint) -> WeightMap:
    """Ties a checkpoint's tensors to a model's leaves.

    Raises:
        ValueError: A tensor is missing, unknown, of another shape, or there under two names, or experts are stacked.
    """
    stacked = next((key for key in checkpoint.specs if key.endswith(".mlp.experts.gate_up_proj")), None)
    if stacked is not None:
        raise ValueError(
            f"{checkpoint.path}: {stacked!r} holds all experts of a layer, as save_pretrained(save_original_format=False) writes "
            "them; expected a tensor for each expert: save the model without that option"
        )
    family = FAMILIES[model.config.family]
    names = canonical_names(model.config.family, checkpoint.specs)
    tensors = {name: checkpoint.specs[key].shape for name, key in names.items()}
    found = match(family.rows(model.config), leaf_shapes(model.abstract), tensors, str(checkpoint.path))
    leaves = {
        path: tuple(place._replace(key=names[place.key]) for place in places) for path, places in found.leaves.items()
    }
    return WeightMap(leaves, tuple(names[name] for name in found.kept))


def _check_sizes(config: Config, checkpoint: Checkpoint) -> None:
    """Refuses a config that is larger than its files, before anything of that size is allocated.

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
    """Returns per leaf the function that moves it from the host to its devices."""
    if shardings is None:
        return dict.fromkeys(plan.leaves, jnp.asarray)
    targets = flatten_dict(shardings, sep="/")
    if set(targets) != set(plan.leaves):
        odd = sorted(set(targets) ^ set(plan.leaves))[0]
        raise ValueError(f"shardings and params differ at {odd!r}; expected one sharding per leaf")

    def put(sharding: jax.sharding.Sharding) -> Callable[[np.ndarray], jax.Array]:
        return lambda array: jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return {leaf: put(sharding) for leaf, sharding in targets.items()}


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Returns whether two tensors have the same type and bytes."""
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()
