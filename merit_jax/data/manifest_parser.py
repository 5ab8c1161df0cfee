"""Parses the file of a manifest, JSON or YAML, into dataset name -> fields."""

import json
from collections.abc import Mapping
from typing import Any

import yaml
from etils import epath

from merit_jax.core.errors import raise_if_of_machine
from merit_jax.data.json_values import check_value, parse_json, unique

MAX_NODES = 10_000_000
"""Most values of a YAML manifest; one that an alias repeats counts each time."""


def load_manifest(path: str) -> Mapping[str, Mapping[str, Any]]:
    """Reads a manifest.

    Args:
        path: A `.json`, `.yaml` or `.yml` file.

    Raises:
        ValueError: There is no such file, it cannot be read, a name is there twice, or an entry is no object.
    """
    if not epath.Path(path).is_file():
        raise ValueError(f"{path}: no such manifest; give a .json or .yaml file, or a glob")
    try:
        text = epath.Path(path).read_bytes().decode("utf-8-sig")
        data = parse_json(text, path) if path.endswith(".json") else _parse_yaml(text, path)
    except (UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not a readable manifest ({error}); mend the syntax") from error
    if not isinstance(data, dict) or not data or not all(isinstance(entry, dict) for entry in data.values()):
        raise ValueError(
            f"{path}: expected an object {{dataset name: {{file_name: ...}}}}; to name record files, give a glob"
        )
    try:
        return unique([(str(name), entry) for name, entry in data.items()])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _parse_yaml(text: str, path: str) -> Any:
    """Reads YAML's plain values.

    Raises:
        ValueError: A name is there twice, or the text is damaged, nested too deeply, or grows beyond measure.
        yaml.YAMLError: It is not YAML, or asks for Python objects.
    """
    loader = _UniqueLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _nodes(node, {}) > MAX_NODES:
            raise ValueError(f"its aliases make more than {MAX_NODES} values of it")
        value = loader.construct_document(node)
        check_value(value, path)
        return value
    except yaml.YAMLError:
        raise
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply, or in itself; write a plain manifest") from None
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    except Exception as error:  # PyYAML fails on odd values in any way: AttributeError, KeyError, TypeError, ...
        raise_if_of_machine(error, path)
        raise ValueError(f"{path}: not a readable manifest ({type(error).__name__}: {error}); mend the value") from None
    finally:
        loader.dispose()


class _UniqueLoader(yaml.SafeLoader):
    """Safe loader that refuses a repeated key."""


def _construct(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    construct = loader.construct_object
    return unique([(construct(key, deep=True), construct(value, deep=True)) for key, value in node.value])


_UniqueLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct)


def _nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """Nodes of a tree, those that aliases repeat counted each time; a node is traversed once."""
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        pairs = isinstance(node, yaml.MappingNode)
        known[id(node)] = 1 + sum(_nodes(child, known) for part in parts for child in (part if pairs else (part,)))
    return known[id(node)]
