"""Records which keys the configurations of other trainers have, and of which types, from the installed tool's own classes.

python tests/launch/emitting/schemas/make.py trl          # in an environment with trl
python tests/launch/emitting/schemas/make.py llamafactory # with llamafactory
python tests/launch/emitting/schemas/make.py axolotl      # with axolotl
"""

import dataclasses
import enum
import importlib.metadata
import json
import sys
import types
import typing
from pathlib import Path

JSON = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    list: "list",
    tuple: "list",
    dict: "dict",
    type(None): "null",
}


def json_types(annotation):
    """The JSON types that an annotation takes."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return sorted({name for part in typing.get_args(annotation) for name in json_types(part)})
    if origin is typing.Annotated:
        return json_types(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return sorted({JSON[type(value)] for value in typing.get_args(annotation)})
    kind = origin or annotation
    if kind in JSON:
        return [JSON[kind]]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return ["str"]
    return ["dict"] if isinstance(kind, type) else sorted(set(JSON.values()))


def of_dataclasses(*classes):
    hints = [(typing.get_type_hints(one), one) for one in classes]
    return {field.name: json_types(hint[field.name]) for hint, one in hints for field in dataclasses.fields(one)}


def of_models(model):
    return {name: json_types(field.annotation) for name, field in model.model_fields.items()}


def trl():
    from trl import ModelConfig, ScriptArguments, SFTConfig
    from trl.scripts.utils import DatasetConfig
    from trl.scripts.utils import DatasetMixtureConfig as Mixture

    return {
        "train.yaml": of_dataclasses(ScriptArguments, SFTConfig, ModelConfig, Mixture),
        "dataset": of_dataclasses(DatasetConfig),
    }


def llamafactory():
    from llamafactory.data.parser import DatasetAttr
    from llamafactory.hparams.parser import _TRAIN_ARGS

    names = {"file_name": ["str"], "columns": ["dict"], "tags": ["dict"]}
    return {"train.yaml": of_dataclasses(*_TRAIN_ARGS), "dataset": {**names, **of_dataclasses(DatasetAttr)}}


def axolotl():
    from axolotl.utils.schemas.config import AxolotlInputConfig
    from axolotl.utils.schemas.datasets import SFTDataset

    return {"train.yaml": of_models(AxolotlInputConfig), "dataset": of_models(SFTDataset)}


def main(tool, version=None):
    found = {
        part: dict(sorted(keys.items()))
        for part, keys in {"trl": trl, "llamafactory": llamafactory, "axolotl": axolotl}[tool]().items()
    }
    lines = [
        f"  {json.dumps(part)}: {{\n"
        + ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in keys.items())
        + "\n  }"
        for part, keys in found.items()
    ]
    head = f'  "recorded_from": {json.dumps(f"{tool} {version or importlib.metadata.version(tool)}")}'
    Path(__file__).with_name(f"{tool}.json").write_text("{\n" + ",\n".join([head, *lines]) + "\n}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
