"""The text families: alone, and as the decoder of a model with images."""

from types import ModuleType

from merit_jax.models.families import llama, qwen2

DECODERS: dict[str, ModuleType] = {
    "llama": llama,
    "qwen2": qwen2,
}
"""`model_type` of a config.json -> the family's file, which has `parse` and `rows`."""
