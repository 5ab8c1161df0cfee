"""A Hugging Face folder before it has weights: the model of its config.json, and the files that come with it."""

from pathlib import Path

import numpy as np

from merit_jax.models.build_model import build
from merit_jax.models.families.registry import FAMILIES, parse_config
from merit_jax.models.interface import Model
from merit_jax.models.io.hf_folder import read_json
from merit_jax.models.io.safetensors import TensorSpec
from merit_jax.models.io.weight_map import expand, leaf_shapes, tensor_shape


class ConfigOnlyCheckpoint:
    """A `Checkpoint` without tensors, for `export_hf` to make a folder like it; weights in the folder do not count.

    Attributes:
        path: Folder.
        config_file: Its config.json.
        config: Content of that.
        model: The model that it describes.
        specs: The tensors that the model's family asks for, in float32.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config_file = str(self.path / "config.json")
        self.config = read_json(self.path / "config.json")
        self.model: Model = build(parse_config(self.config, self.config_file))
        shapes, config = leaf_shapes(self.model.abstract), self.model.config
        shape_of = {
            place.key: tensor_shape(shapes[leaf], place)
            for leaf, place in expand(FAMILIES[config.family].rows(config), shapes)
        }
        self.specs = {key: TensorSpec(key, np.dtype(np.float32), shape) for key, shape in shape_of.items()}

    def read(self, key: str) -> np.ndarray:
        """Raises ValueError: there is no tensor yet."""
        raise ValueError(f"{self.path}: tensor {key!r} is yet to be made")
