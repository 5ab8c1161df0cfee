"""Methods: the words after a config file's colon, and the keys that each stands for."""

import ast
import copy
import re
from typing import Any, NamedTuple

from ml_collections import ConfigDict


class Method(NamedTuple):
    """Keys of the config that an arg string stands for.

    Attributes:
        partition: `partition.method`.
        merge: `merge.method`.
        similarity: `conflict.similarity`.
        centring: `conflict.centring`.
    """

    partition: str
    merge: str = "token_weighted"
    similarity: str = "cosine"
    centring: str = "columns"


METHODS = {
    r"joint": Method("joint"),
    r"merit(\d)d": Method("median_split"),
    r"gram(\d)d": Method("median_split", similarity="gram"),  # MERIT without normalising the gradients
    r"double(\d)d": Method("median_split", centring="double"),  # principal components of the unit gradients
    r"raw(\d)d": Method("median_split", similarity="gram", centring="double"),  # of the gradients themselves
    r"curvature(\d)d": Method("median_split", similarity="curvature"),  # cosines that the loss's curvature weighs
    r"random(\d+)": Method("random"),
    r"alike(\d+)": Method("alike"),  # conflicting datasets dealt over all branches: MERIT's opposite
    r"kmeans(\d+)": Method("kmeans"),
    r"conflict(\d+)": Method("conflict_induced"),
    r"soup(\d+)": Method("replicate", "uniform"),
    r"examples(\d+)": Method("examples"),
    r"wise": Method("joint", "interpolate"),
}
"""Arg string of a config file -> its method. The number is K; with a d behind it, it is r, and K = 2^r."""

SECTIONS = ("conflict", "partition", "rounds", "train", "merge")
"""Sections whose keys a method may override."""


def with_method(config: ConfigDict, method: str) -> ConfigDict:
    """The config with the partitioner and merger that an arg string such as "merit2d" or "random4" names.

    Joint training, which is one branch, has one round without a warm start or an outer step, whatever the config says.
    """
    for pattern, found in METHODS.items():
        if match := re.fullmatch(pattern, method):
            number = int(match[1]) if match.groups() else 1
            config.method = method
            config.conflict.similarity, config.conflict.centring = found.similarity, found.centring
            config.partition.method = found.partition
            config.partition.groups = 2**number if found.partition == "median_split" else number
            config.merge.method = found.merge
            if found.partition in ("joint", "replicate", "examples"):  # controls that have the data in one place
                config.partition.sites = ()
            if found.partition == "joint":
                config.rounds.update({"count": 1, "warm": 0.0, "outer_rate": 1.0, "momentum": 0.0})
            return config
    known = ", ".join(pattern.replace(r"(\d)", "R").replace(r"(\d+)", "K") for pattern in METHODS)
    raise ValueError(f"unknown method {method!r}; known: {known} (R, K: a number)")


def variant(config: ConfigDict, spec: str) -> ConfigDict:
    """A copy of the config for another method: an arg string, with overrides as "joint:train.learning_rate=2e-5,train.epochs=2".

    Raises:
        ValueError: The method or a key is unknown, or a key is not of `SECTIONS`.
    """
    method, overrides = parse(spec)
    config = with_method(copy.deepcopy(config).unlock(), method)
    for key, text in overrides.items():
        if not key.startswith(tuple(f"{section}." for section in SECTIONS)) or not _has(config, key):
            known = f"{', '.join(SECTIONS[:-1])} or {SECTIONS[-1]}"
            raise ValueError(f"method {spec!r}: cannot override {key!r}; use a key of {known}")
        section, _, name = key.partition(".")
        value = text if isinstance(config[section][name], str) else _literal(text)
        try:
            config.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            raise ValueError(f"method {spec!r}: {key} = {text!r}: {error}") from None
    return config.lock()


def parse(spec: str) -> tuple[str, dict[str, str]]:
    """The arg string of a method, and the text of every key that it overrides; a comma may be part of a value."""
    method, _, overrides = spec.partition(":")
    parts = [part.partition("=") for part in re.split(r",(?=\w+\.\w+=)", overrides) if part]
    return method, {key: text for key, _, text in parts}


def _has(config: ConfigDict, key: str) -> bool:
    section, _, name = key.partition(".")
    return name in config[section]


def _literal(text: str) -> Any:
    """A number, tuple or boolean as Python writes it; anything else is a string."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
