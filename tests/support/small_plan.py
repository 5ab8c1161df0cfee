"""A small model, its task and its sizes, for plans."""

from typing import Any

import optax
from jax.sharding import Mesh

from merit_jax.core.loss import next_token_loss
from merit_jax.core.sharding import Placement
from merit_jax.models import DecoderConfig, Model, build
from merit_jax.models.interface import REMAT
from merit_jax.planning.execution import TrainingTask, text_row
from merit_jax.planning.shapes import Architecture, BlockStack, ImageWork
from merit_jax.training.optimizer import make_optimizer

SIZES = {"vocab_size": 512, "hidden_size": 64, "layers": 4, "heads": 8, "kv_heads": 8, "head_dim": 8, "mlp_size": 192}
CHUNK = 32


def model(**changes: Any) -> Model:
    return build(DecoderConfig(**{"family": "llama", "tied": True, **SIZES, **changes}))


def task(length: int = 64, trainable: tuple[str, ...] = (".*",), shards: int = 1, **changes: Any) -> TrainingTask:
    built = model(**changes)
    return TrainingTask(
        built.abstract,
        built.logical_axes,
        trainable,
        optimizer(),
        lambda remat, mesh: next_token_loss(model(remat=remat, placement=placement(mesh), **changes), CHUNK, shards),
        text_row(length),
        tuple(REMAT),
    )


def placement(mesh: Mesh | None) -> Placement | None:
    return None if mesh is None else Placement(lambda: mesh)


def optimizer() -> optax.GradientTransformation:
    return make_optimizer("adamw", clip_norm=1.0)


def architecture(**changes: Any) -> Architecture:
    c = {**SIZES, **changes}
    width = c["heads"] * c["head_dim"]
    stack = BlockStack(c["layers"], c["hidden_size"], width, c["kv_heads"] * c["head_dim"], c["heads"], c["mlp_size"])
    return Architecture(model(**changes).abstract, stack, c["vocab_size"], None, ImageWork(), 4)
