"""A config.json with the defaults of transformers written out."""

import copy
import warnings
from collections.abc import Mapping
from typing import Any


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config with every default of transformers, and old keys in their present spelling; the argument is left alone.

    Raises:
        Exception: Of any kind: transformers does not know the model type, or fails on a value.
    """
    from transformers import CONFIG_MAPPING

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CONFIG_MAPPING[config["model_type"]].from_dict(copy.deepcopy(dict(config))).to_dict()
