"""Reads rotary positions and windows of the layers from a completed config.json."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from merit_jax.models.families.config_parsing import Section
from merit_jax.models.interface import LayerKind
from merit_jax.models.rope_settings import LinearScaling, Llama3Scaling, LongRopeScaling, Rope, Scaling, YarnScaling

FULL, SLIDING = "full_attention", "sliding_attention"
"""Entries of `layer_types`."""


def rope_settings(full: Section) -> Section:
    """Returns the RoPE settings of a completed config.

    Raises:
        ValueError: They differ by layer type.
    """
    found, length = full.section("rope_parameters"), "original_max_position_embeddings"
    rope = Section({**found.raw, **{key: full.raw[key] for key in (length,) if key in full.raw}}, found.where)
    for key, value in rope.raw.items():
        if isinstance(value, Mapping):
            rope.refuse(key, value, ": settings by layer type are not supported; expected one set for all layers")
    return rope


def one_rope(full: Section, *, partial: bool = False) -> Rope:
    """Returns the RoPE of all layers.

    Args:
        full: Completed config.
        partial: Whether the family rotates a part of each head if the config says so.
    """
    if not partial:
        full.expect("partial_rotary_factor", None, 1)
    return parse_rope(rope_settings(full), full, partial=partial)


def ropes_by_type(full: Section) -> dict[str, Rope]:
    """Returns entry of `layer_types` -> its RoPE, of a config whose settings differ by layer type."""
    full.expect("partial_rotary_factor", None, 1)
    settings = full.section("rope_parameters")
    settings.expect("truncate", None)
    ropes = {kind: parse_rope(settings.section(kind), full) for kind in (FULL, SLIDING)}
    for kind, rope in ropes.items():
        if isinstance(rope.scaling, YarnScaling) and not rope.scaling.truncate:
            settings.section(kind).refuse("truncate", False, " is not supported where settings differ by layer type")
    return ropes


def parse_rope(rope: Section, full: Section, *, partial: bool = False) -> Rope:
    """Reads one set of RoPE settings of a completed config.

    Raises:
        ValueError: A value is missing, of the wrong type, or asks for what is not implemented.
    """
    share = rope.number("partial_rotary_factor", 1.0)
    kinds = {kind: read for kind, read in SCALINGS.items() if kind != "longrope" or partial}
    rope.expect("rope_type", *kinds)
    if not partial:
        rope.expect("partial_rotary_factor", None, 1)
    elif not 0 < share <= 1:
        rope.refuse("partial_rotary_factor", share, "; expected more than 0 and 1 at most")
    heads = max(full.integer("num_attention_heads"), 1)
    head_dim = full.integer("head_dim", full.integer("hidden_size") // heads)
    rotated = None if share == 1 else int(head_dim * share)
    return Rope(rope.positive("rope_theta"), kinds[rope.raw["rope_type"]](rope, full), rotated)


def _llama3(rope: Section, full: Section) -> Llama3Scaling:
    low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
    if high <= low:
        rope.refuse("high_freq_factor", high, f"; expected more than low_freq_factor = {low}")
    return Llama3Scaling(
        factor=rope.positive("factor"),
        low_freq_factor=low,
        high_freq_factor=high,
        original_length=_original_length(rope),
    )


def _yarn(rope: Section, full: Section) -> YarnScaling:
    if rope.positive("rope_theta") <= 1:
        rope.refuse("rope_theta", rope.raw["rope_theta"], "; expected more than 1 with YaRN")
    length, factor = _original_length(rope), _factor(rope, full)
    one, all_dim = rope.number("mscale", 0.0), rope.number("mscale_all_dim", 0.0)
    usual = _mscale(factor, one) / _mscale(factor, all_dim) if one and all_dim else _mscale(factor, 1.0)
    rope.expect("truncate", None, True, False)
    fast, slow = rope.number("beta_fast", 0.0) or 32.0, rope.number("beta_slow", 0.0) or 1.0
    for key, beta in (("beta_fast", fast), ("beta_slow", slow)):
        if beta < 0:
            rope.refuse(key, beta, "; expected more than 0")
    return YarnScaling(
        factor,
        length,
        rope.number("attention_factor", usual),
        beta_fast=fast,
        beta_slow=slow,
        truncate=rope.raw.get("truncate", True) is not False,
    )


def _longrope(rope: Section, full: Section) -> LongRopeScaling:
    length, factor = _original_length(rope), _factor(rope, full)
    if length < 2:
        rope.refuse("original_max_position_embeddings", length, "; expected 2 or more with LongRoPE")
    usual = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(length))
    short, long = (_divisors(rope, key) for key in ("short_factor", "long_factor"))
    return LongRopeScaling(short, long, length, rope.number("attention_factor", usual))


def _divisors(rope: Section, key: str) -> tuple[float, ...]:
    found = rope.get(key)
    if not isinstance(found, list | tuple) or not all(isinstance(n, int | float) and n > 0 for n in found):
        rope.refuse(key, found, "; expected a list of numbers above 0")
    return tuple(float(n) for n in found)


SCALINGS: dict[str, Callable[[Section, Section], Scaling | None]] = {
    "default": lambda rope, full: None,
    "linear": lambda rope, full: LinearScaling(rope.positive("factor")),
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
"""`rope_type` -> (its settings, completed config) -> how frequencies are stretched."""


def _mscale(factor: float, scale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def _factor(rope: Section, full: Section) -> float:
    """Returns the factor; absent, that of the longest context to the original one."""
    if rope.get("factor") is not None:
        return rope.positive("factor")
    return full.integer("max_position_embeddings") / _original_length(rope)


def _original_length(rope: Section) -> int:
    return int(rope.positive("original_max_position_embeddings"))


def without_windows(full: Section) -> dict[str, Any]:
    """Returns the fields of `DecoderConfig` of layers that are alike and see all before them.

    Raises:
        ValueError: The config has windows.
    """
    kinds = full.get("layer_types") or ()
    if full.get("sliding_window") is not None and any(kind != FULL for kind in kinds or ("sliding",)):
        full.refuse(
            "sliding_window", full.get("sliding_window"), ": windowed attention is not supported in this family"
        )
    for kind in kinds:
        Section({"layer_types": kind}, full.where).expect("layer_types", FULL)
    return {"rope": one_rope(full)}


def with_one_window(full: Section, *, partial: bool = False) -> dict[str, Any]:
    """Returns the fields of `DecoderConfig` of layers that all have the window of the config, if it has one."""
    full.expect("layer_types", None)
    rope = one_rope(full, partial=partial)
    window = 0 if full.get("sliding_window") is None else _window(full)
    return {"rope": rope, "kinds": (LayerKind(rope, window),) * full.integer("num_hidden_layers") if window else ()}


def by_layer_type(
    full: Section, ropes: Mapping[str, Rope], positions: Callable[[int], bool] = lambda layer: True
) -> dict[str, Any]:
    """Returns the fields of `DecoderConfig` of layers of the kinds that `layer_types` lists.

    Args:
        full: Completed config.
        ropes: Entry of `layer_types` -> its RoPE.
        positions: Layer -> whether its tokens have positions.

    Raises:
        ValueError: There is another kind, or windowed layers without a window.
    """
    names = full.get("layer_types")
    if not isinstance(names, list | tuple) or len(names) != full.integer("num_hidden_layers"):
        full.refuse("layer_types", names, f"; expected a list of {full.raw['num_hidden_layers']} names")
    kinds = []
    for layer, name in enumerate(names):
        Section({"layer_types": name}, full.where).expect("layer_types", FULL, SLIDING)
        kinds.append(LayerKind(ropes[name] if positions(layer) else None, _window(full) if name == SLIDING else 0))
    alike = set(kinds) == {LayerKind(ropes[FULL])}
    return {"rope": ropes[FULL], "kinds": () if alike else tuple(kinds)}


def _window(full: Section) -> int:
    found = full.integer("sliding_window")
    return found if found > 0 else full.refuse("sliding_window", found, "; expected more than 0")
